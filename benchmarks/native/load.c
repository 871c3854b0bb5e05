/* Load for benchmarks: N connections from one thread, every response read to its end and checked.
 *
 *     load PORT MODE CONNECTIONS SECONDS
 *
 * MODE is `point` (one row, always the same text), `distinct` (one row, each text with a literal of its own), `execute`
 * (the same by a prepared statement), `big` (12,000 rows), `idle` or `logins` (connect, log in, quit, again and again).
 * Opens the connections (but for `logins`), logs in without a password, asks once (but for `idle`), prints `ready`, waits
 * for a line on its input, works for SECONDS, prints one line of figures, and waits for the end of its input (`idle`:
 * only waits for that). Latencies are in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, WELCOMED, PREPARING, IDLE, COUNT, DEFINITION, ROWS_BEGIN, ROWS, LEAVING, BROKEN };
enum { ROWS_OF_BIG = 12000, ANSWERS_TO_PREPARE = 5, DIGITS = 9 };

struct connection {
    int fd, state, rows;
    unsigned char header[4], sequence, first;
    unsigned have;               /* bytes of the header */
    size_t length, taken;        /* of the payload */
    uint64_t began;
};

static const char POINT[] = "\x1b\0\0\0\3SELECT c FROM t WHERE id=1", BIG[] = "\x0b\0\0\0\3SELECT big";
static const char PREPARE[] = "\x1b\0\0\0\x16SELECT c FROM t WHERE id=?";
/* Their last bytes are a number that changes. */
static char distinct[] = "\x23\0\0\0\3SELECT c FROM t WHERE id=000000001";
static char execute[] = "\x16\0\0\0\x17\1\0\0\0\0\1\0\0\0\0\1\x08\0\0\0\0\0\0\0\0\0";
static struct sockaddr_in target = {.sin_family = AF_INET};
static const char *query, *mode;
static size_t query_size, samples, room, number;
static int rows_due, working, poller;
static uint32_t *latencies;
static unsigned long errors;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void broken(struct connection *c, const char *why) {
    if (errors++ < 5) fprintf(stderr, "load: %s (state %d)\n", why, c->state);
    if (c->fd >= 0) close(c->fd);
    c->fd = -1, c->state = BROKEN;
}

static void say(struct connection *c, const char *bytes, size_t size) {
    if (send(c->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) broken(c, "a request was not taken whole");
}

static void done(struct connection *c) {
    if (samples == room) latencies = realloc(latencies, (room = room ? room * 2 : 1 << 16) * sizeof *latencies);
    latencies[samples++] = now() - c->began;
}

static void ask(struct connection *c) {
    c->state = COUNT, c->sequence = 1, c->rows = 0;
    c->began = now();
    number++;
    if (query == distinct) snprintf(distinct + sizeof distinct - 1 - DIGITS, DIGITS + 1, "%0*zu", DIGITS, number % 1000000000);
    if (query == execute) memcpy(execute + sizeof execute - 1 - sizeof number, &number, sizeof number);
    say(c, query, query_size);
}

static void begin(struct connection *c) {
    int yes = 1;
    memset(c, 0, sizeof *c);
    c->began = now();
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&target, sizeof target)) broken(c, "cannot connect");
}

/* Flags: long password, protocol 41, transactions, secure connection, multi results, plugin auth. */
static void log_in(struct connection *c) {
    static const char response[] = "\x3c\0\0\1\1\xa2\x0a\0\0\0\0\1\x2d\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                   "root\0\0mysql_native_password";
    char packet[sizeof response];
    memcpy(packet, response, sizeof packet);
    packet[0] = sizeof response - 4;
    say(c, packet, sizeof packet);
}

/* One packet has ended. */
static void packet(struct connection *c) {
    int eof = c->first == 0xfe && c->length < 9;
    if (c->header[3] != c->sequence++) return broken(c, "a packet out of order");
    if (c->first == 0xff && c->length > 2) return broken(c, "an error packet");
    switch (c->state) {
    case CONNECTING:
        if (c->first != 10) return broken(c, "no greeting");
        c->state = WELCOMED, c->sequence = 2;
        return log_in(c);
    case WELCOMED:
        if (c->first != 0) return broken(c, "the login did not end with OK");
        c->state = IDLE;
        if (query == execute) {
            c->state = PREPARING, c->sequence = 1;
            return say(c, PREPARE, sizeof PREPARE - 1);
        }
        if (*mode != 'l') return;
        done(c);
        c->state = LEAVING;
        return say(c, "\1\0\0\0\1", 5);
    case PREPARING:
        if (c->sequence > ANSWERS_TO_PREPARE) c->state = IDLE;
        return;
    case COUNT:
        if (c->length != 1 || c->first != 1) return broken(c, "not one column");
        c->state = DEFINITION;
        return;
    case DEFINITION:
        if (c->first != 3) return broken(c, "no column definition");
        c->state = ROWS_BEGIN;
        return;
    case ROWS_BEGIN:
        if (!eof) return broken(c, "no EOF after the definition");
        c->state = ROWS;
        return;
    case ROWS:
        if (!eof) {
            if (query != execute && c->length != c->first + 1u) return broken(c, "a row of wrong length");
            c->rows++;
            return;
        }
        if (c->rows != rows_due) return broken(c, "wrong number of rows");
        c->state = IDLE;
        done(c);
        if (working) ask(c);
        return;
    default: return broken(c, "a packet that nobody asked for");
    }
}

static void take(struct connection *c, const unsigned char *at, size_t size) {
    const unsigned char *end = at + size;
    while (at < end && c->state != BROKEN) {
        if (c->have < 4) {
            c->header[c->have++] = *at++;
            if (c->have < 4) continue;
            c->length = c->header[0] | c->header[1] << 8 | c->header[2] << 16;
            c->taken = 0, c->first = 0;
            if (!c->length) return broken(c, "an empty packet");
            continue;
        }
        size_t step = c->length - c->taken;
        if (!c->taken) c->first = *at;
        if (step > (size_t)(end - at)) step = end - at;
        at += step, c->taken += step;
        if (c->taken < c->length) continue;
        c->have = 0;
        if (c->state == IDLE || (at < end && c->state == CONNECTING)) return broken(c, "bytes that nobody asked for");
        packet(c);
    }
}

static void receive(struct connection *c) {
    static unsigned char buffer[256 * 1024];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got > 0) return take(c, buffer, got);
    if (got < 0 && errno == EAGAIN) return;
    if (c->state != LEAVING) return broken(c, "the connection was closed");
    close(c->fd);
    c->fd = -1, c->state = IDLE;
}

static void watch(struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void again(struct connection *c) {
    begin(c);
    if (c->state != BROKEN) watch(c);
}

static int rising(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "usage: load PORT MODE CONNECTIONS SECONDS\n"), 2;
    int count = atoi(argv[3]), logins;
    double seconds = atof(argv[4]);
    char line[64];
    struct connection *all = calloc(count, sizeof *all);
    struct epoll_event events[256];
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    mode = argv[2], logins = *mode == 'l';
    rows_due = *mode == 'b' ? ROWS_OF_BIG : 1;
    query = POINT, query_size = sizeof POINT - 1;
    if (*mode == 'b') query = BIG, query_size = sizeof BIG - 1;
    if (*mode == 'd') query = distinct, query_size = sizeof distinct - 1;
    if (*mode == 'e') query = execute, query_size = sizeof execute - 1;
    target.sin_port = htons(atoi(argv[1]));
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    poller = epoll_create1(0);
    for (int i = 0; i < count && !logins; i++) {
        begin(all + i);
        while (all[i].state < IDLE) receive(all + i);
        if (*mode != 'i' && all[i].state == IDLE) ask(all + i); /* whatever is opened only when needed is open then */
        while (all[i].state != IDLE && all[i].state != BROKEN) receive(all + i);
        if (all[i].state == IDLE) watch(all + i);
    }
    samples = 0;
    printf("ready errors=%lu\n", errors);
    fflush(stdout);
    while (*mode == 'i' && fgets(line, sizeof line, stdin)) continue;
    if (*mode == 'i' || !fgets(line, sizeof line, stdin)) return errors != 0;
    working = 1;
    uint64_t start = now(), stop = start + (uint64_t)(seconds * 1e9), end = start;
    for (int i = 0; i < count; i++) {
        if (logins) again(all + i);
        else if (all[i].state == IDLE) ask(all + i);
    }
    for (int busy = count; busy;) {
        int ready = epoll_wait(poller, events, 256, 5000);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            receive(c);
            if (logins && c->fd < 0 && working) again(c);
        }
        end = now();
        if (end >= stop) working = 0;
        if (!ready && end > stop + 5000000000ull) {
            fprintf(stderr, "load: no end of some responses\n");
            errors++;
            break;
        }
        /* Only when time is up can connections come to rest, so only then are they counted. */
        for (int i = busy = 0; i < count; i++) {
            busy += working ? all[i].state != BROKEN : all[i].state != BROKEN && all[i].state != IDLE;
            if (working && busy) break;
        }
    }
    qsort(latencies, samples, sizeof *latencies, rising);
    printf("count=%zu seconds=%.6f p50=%.1f p99=%.1f errors=%lu\n", samples, (end - start) / 1e9,
           samples ? latencies[samples / 2] / 1e3 : 0.0, samples ? latencies[samples * 99 / 100] / 1e3 : 0.0, errors);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) continue;
    return errors != 0;
}
