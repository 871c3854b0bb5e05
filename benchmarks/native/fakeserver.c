/* A server that does nothing but answer, for benchmarks: one thread, epoll, prepared responses.
 *
 * Any login is accepted. A query gets one row of 100 bytes; "SELECT big" gets 12,000 rows, 1 MB in all; SHOW GRANTS a
 * grant of everything; SET, BEGIN, COMMIT and ROLLBACK get an OK. A prepared statement has one parameter, and gets that
 * row, too. Classic EOF packets. Prints its port.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_SIZE = 8192, ROWS_OF_BIG = 12000, SIZE_OF_BIG_ROW = 82, SIZE_OF_ROW = 100 };

/* Long password, found rows, long flag, with db, local files, protocol 41, interactive, transactions, reserved, secure
 * connection, multi statements, multi results, plugin auth, connect attributes, lenenc auth data. */
static const uint32_t CAPABILITIES = 1 | 2 | 4 | 8 | 0x80 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 |
                                     0x20000 | 0x80000 | 0x100000 | 0x200000;

struct response { unsigned char *bytes; size_t size; };

struct connection {
    int fd, logged_in, writing;
    size_t have, left;         /* bytes in `in`, bytes of `out` that the peer has not taken yet */
    const unsigned char *out;
    unsigned char in[IN_SIZE];
};

static struct response point, big, grants, ok, unknown, prepared, executed;
static uint32_t thread_id;
static int poller;

static void add(struct response *r, unsigned char sequence, const void *payload, size_t size) {
    r->bytes = realloc(r->bytes, r->size + size + 4);
    unsigned char *at = r->bytes + r->size;
    at[0] = size & 255, at[1] = size >> 8 & 255, at[2] = size >> 16 & 255, at[3] = sequence;
    memcpy(at + 4, payload, size);
    r->size += size + 4;
}

static const char definition[] = "\3def\1d\1t\1t\1c\1c\x0c\x2d\0\xff\xff\0\0\xfd\0\0\0\0\0";
static const char eof[] = {(char)0xfe, 0, 0, 2, 0};

/* `head` stands before the text of each row: nothing, or what the binary protocol has there. */
static void build(struct response *r, int rows, const char *head, size_t head_size, const char *text, size_t size) {
    unsigned char sequence = 1, row[256];
    add(r, sequence++, "\1", 1);
    add(r, sequence++, definition, sizeof definition - 1);
    add(r, sequence++, eof, sizeof eof);
    memcpy(row, head, head_size);
    row[head_size] = size;
    memcpy(row + head_size + 1, text, size);
    while (rows--) add(r, sequence++, row, head_size + size + 1);
    add(r, sequence, eof, sizeof eof);
}

static void build_all(void) {
    char text[SIZE_OF_ROW];
    static const char grant[] = "GRANT ALL PRIVILEGES ON *.* TO `root`@`%` WITH GRANT OPTION";
    memset(text, 'x', sizeof text);
    build(&point, 1, "", 0, text, SIZE_OF_ROW);
    build(&executed, 1, "\0\0", 2, text, SIZE_OF_ROW);
    build(&big, ROWS_OF_BIG, "", 0, text, SIZE_OF_BIG_ROW);
    build(&grants, 1, "", 0, grant, sizeof grant - 1);
    add(&prepared, 1, "\0\1\0\0\0\1\0\1\0\0\0\0", 12);
    for (unsigned char sequence = 2; sequence < 6; sequence += 2) {
        add(&prepared, sequence, definition, sizeof definition - 1);
        add(&prepared, sequence + 1, eof, sizeof eof);
    }
    add(&ok, 1, "\0\0\0\2\0\0\0", 7);
    add(&unknown, 1, "\xff\x17\x04#08S01Unknown command", 24);
}

static void leave(struct connection *c) {
    close(c->fd);
    free(c);
}

/* Send what is left; 0 if the peer has gone. */
static int flush(struct connection *c) {
    while (c->left) {
        ssize_t sent = send(c->fd, c->out, c->left, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return 0;
        if (sent < 0) break;
        c->out += sent, c->left -= sent;
    }
    int writing = c->left > 0;
    if (writing != c->writing) {
        struct epoll_event event = {.events = writing ? EPOLLOUT : EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
        c->writing = writing;
    }
    return 1;
}

static const struct response *answer(const unsigned char *payload, size_t size) {
    const char *text = (const char *)payload + 1;
    size_t length = size - 1;
    switch (payload[0]) {
    case 0x02: case 0x0e: case 0x1f: return &ok; /* COM_INIT_DB, COM_PING, COM_RESET_CONNECTION */
    case 0x16: return &prepared;
    case 0x17: return &executed;
    case 0x03: break;
    default: return &unknown;
    }
    if (length >= 10 && !memcmp(text, "SELECT big", 10)) return &big;
    if (length >= 11 && !strncasecmp(text, "SHOW GRANTS", 11)) return &grants;
    if ((length >= 4 && !strncasecmp(text, "SET ", 4)) || (length >= 5 && !strncasecmp(text, "BEGIN", 5)) ||
        (length >= 6 && !strncasecmp(text, "COMMIT", 6)) || (length >= 8 && !strncasecmp(text, "ROLLBACK", 8)))
        return &ok;
    return &point;
}

/* Answer the packets that are whole, one after the other; 0 if the connection ends. */
static int work(struct connection *c) {
    size_t at = 0;
    while (!c->left && c->have - at >= 4) {
        const unsigned char *packet = c->in + at;
        size_t size = packet[0] | packet[1] << 8 | packet[2] << 16;
        if (size == 0 || size + 4 > IN_SIZE) return 0;
        if (c->have - at < size + 4) break;
        at += size + 4;
        if (!c->logged_in) {
            unsigned char welcome[11];
            memcpy(welcome, ok.bytes, sizeof welcome);
            welcome[3] = packet[3] + 1;
            c->logged_in = 1;
            if (send(c->fd, welcome, sizeof welcome, MSG_NOSIGNAL) != (ssize_t)sizeof welcome) return 0;
            continue;
        }
        if (packet[4] == 0x01) return 0; /* COM_QUIT */
        const struct response *r = answer(packet + 4, size);
        c->out = r->bytes, c->left = r->size;
        if (!flush(c)) return 0;
    }
    if (at && at < c->have) memmove(c->in, c->in + at, c->have - at);
    c->have -= at;
    return 1;
}

static int serve(struct connection *c) {
    if (c->writing) return flush(c) && work(c);
    ssize_t got = recv(c->fd, c->in + c->have, IN_SIZE - c->have, 0);
    if (got < 0 && errno == EAGAIN) return 1;
    if (got <= 0) return 0;
    c->have += got;
    return work(c);
}

static void welcome(int listener) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        unsigned char greeting[128] = {10};
        size_t at = 1;
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
        at += sprintf((char *)greeting + at, "8.0.36-fake") + 1;
        thread_id++;
        memcpy(greeting + at, &thread_id, 4), at += 4;
        memcpy(greeting + at, "12345678", 9), at += 9;
        memcpy(greeting + at, &CAPABILITIES, 2), at += 2;
        greeting[at++] = 45;
        greeting[at++] = 2, greeting[at++] = 0;
        memcpy(greeting + at, (const char *)&CAPABILITIES + 2, 2), at += 2;
        greeting[at++] = 21, at += 10;
        memcpy(greeting + at, "123456789012", 13), at += 13;
        memcpy(greeting + at, "mysql_native_password", 22), at += 22;
        struct response r = {0};
        add(&r, 0, greeting, at);
        if (send(fd, r.bytes, r.size, MSG_NOSIGNAL) < 0) perror("greeting");
        free(r.bytes);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
    socklen_t size = sizeof address;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    build_all();
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (!events[i].data.ptr) welcome(listener);
            else if (!serve(events[i].data.ptr)) leave(events[i].data.ptr);
        }
    }
}
