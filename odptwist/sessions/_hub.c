/* The relay: an epoll of its own, the reactor's epoll nested in it, and the plain exchange without a call from Python.
 *
 * odptwist/sessions/relaying.py says what it is and what it asks of the sessions before every event. Nothing about a
 * session is kept here: its slots are read where they are, at offsets that are found once.
 *
 * Python code can end any session, close any descriptor and give its number to another one. So whatever is used across
 * a call into Python is held by a reference, and no pointer into the table of descriptors is.
 */
#define _GNU_SOURCE 1
#include "../machines/_command.h"
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

/* Events of one wait at most. All are served before the reactor has its turn; each is one read. */
#define BATCH 256
/* What one read takes; as BUFFER_SIZE in transport.py. */
#define BUFFER_SIZE (256 * 1024)
#define MOST_CONDITIONS 16
/* Where the NULLs of a COM_STMT_EXECUTE's parameters begin; a flag and types follow them. */
#define EXECUTE_NULLS (TEXT + 9)
#define IN_TRANSACTION 0x0001
#define CACHE_LINE 64
/* Bytes of a transport that its slots are in. */
#define TRANSPORT_SIZE 80
/* Bytes of a session that nearly all slots in use are in; the rest is about logins and ends. */
#define TOUCHED 512
/* Classes of transports that are known to be ours: for TCP and Unix sockets, of clients and of servers. */
#define KNOWN_TYPES 4
/* The number of the reactor's own descriptor among events: no transport has it, for generations begin with 1. */
#define REACTOR 0

/* A slot, and the one object that must be there: the very object, which is enough for None, flags, small numbers and
 * the empty text, bytes and tuple. Another empty one would only make the event slow. */
typedef struct {
    Py_ssize_t offset;
    PyObject *due;
} Condition;

typedef struct {
    Condition all[MOST_CONDITIONS];
    int count;
} Conditions;

typedef struct {
    PyObject *transport; /* NULL: nobody reads this descriptor here */
    uint32_t generation; /* tells a descriptor from an earlier one with the same number */
} Entry;

typedef struct {
    struct {
        Py_ssize_t descriptor, protocol;
    } transport;
    struct {
        Py_ssize_t transport, bound, tracker, counts, state, status, statement, noted, since, bytes_in, bytes_out;
        Py_ssize_t binary, transactions, transaction_since, inserted_on;
    } client;
    struct {
        Py_ssize_t transport, owner, bytes_in, bytes_out, pickups, versions, prepared;
    } server;
    struct {
        Py_ssize_t plain;
    } tracker;
    struct {
        Py_ssize_t told, busy, responses, requests, busy_before, transactions, idle;
    } counts;
    struct {
        Py_ssize_t versions, pins;
    } state;
    struct {
        Py_ssize_t all, code, known, statement, own, preparing;
    } binary;
    struct {
        Py_ssize_t by_number;
    } statements;
    struct {
        Py_ssize_t parameters, types;
    } statement;
    struct {
        Py_ssize_t by_statement;
    } prepared;
    struct {
        Py_ssize_t statement, number, types;
    } known;
} Offsets;

typedef struct {
    PyObject_HEAD
    int epoll;
    uint32_t generation;
    Entry *entries; /* by descriptor */
    int size;
    PyObject *layout, *clock, *lost, *failed, *done, *broken;
    PyTypeObject *transport_type, *client_type, *server_type, *tracker_type, *counts_type, *state_type;
    /* Of prepared statements: of a client session, its own, one of them; of a server session, one of them. */
    PyTypeObject *binary_type, *statements_type, *statement_type, *prepared_type, *known_type;
    Conditions writable, asking, ending, tracking, serving, keeping, passing;
    Offsets at;
    long long sizes[16];
    int classes;
    PyObject *kinds; /* a tuple of the first three letters of kinds of texts */
    Py_ssize_t small, large, shown;
    char wall; /* whether `clock` is time.time, which need not be called */
    PyTypeObject *known[KNOWN_TYPES];
    Plain plain;
    unsigned char *buffer;
} Hub;

/* What an event has come to. */
enum { BROKEN = -1, IN_C = 0, IN_PYTHON = 1 };

static PyObject *name_doRead, *name_dataReceived, *name_write, *name_asked, *name_responded, *name_fileno;
static PyObject *name_inserted, *name_transaction_ended;

/* -- slots ------------------------------------------------------------------------------------------------------- */

static inline PyObject *
slot(PyObject *object, Py_ssize_t offset)
{
    return *(PyObject **)((char *)object + offset);
}

/* Set a slot; steals `value`, whose NULL is an error that was found before. */
static int
set_slot(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    if (value == NULL)
        return BROKEN;
    PyObject **place = (PyObject **)((char *)object + offset);
    Py_XSETREF(*place, value);
    return 0;
}

static int
meets(PyObject *object, const Conditions *conditions)
{
    for (int i = 0; i < conditions->count; i++)
        if (slot(object, conditions->all[i].offset) != conditions->all[i].due)
            return 0;
    return 1;
}

/* Read a slot that holds a whole number; -1 with an exception if it holds something else. */
static long long
number_at(PyObject *object, Py_ssize_t offset)
{
    PyObject *number = slot(object, offset);
    if (number == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a number that was never set");
        return -1;
    }
    return PyLong_AsLongLong(number);
}

/* The same of a slot with seconds. */
static double
seconds_at(PyObject *object, Py_ssize_t offset)
{
    PyObject *seconds = slot(object, offset);
    if (seconds == NULL) {
        PyErr_SetString(PyExc_AttributeError, "seconds that were never set");
        return -1;
    }
    return PyFloat_AsDouble(seconds);
}

static int
add_to(PyObject *object, Py_ssize_t offset, long long amount)
{
    long long before = number_at(object, offset);
    if (before == -1 && PyErr_Occurred())
        return BROKEN;
    return set_slot(object, offset, PyLong_FromLongLong(before + amount));
}

static int
add_seconds(PyObject *object, Py_ssize_t offset, double seconds)
{
    double before = seconds_at(object, offset);
    if (before == -1 && PyErr_Occurred())
        return BROKEN;
    return set_slot(object, offset, PyFloat_FromDouble(before + seconds));
}

/* Add one to a number in a list. */
static int
count_in(PyObject *list, Py_ssize_t place)
{
    if (list == NULL || !PyList_CheckExact(list) || PyList_GET_SIZE(list) <= place) {
        PyErr_SetString(PyExc_TypeError, "there is nothing to count that by");
        return BROKEN;
    }
    long long count = PyLong_AsLongLong(PyList_GET_ITEM(list, place));
    if (count == -1 && PyErr_Occurred())
        return BROKEN;
    PyObject *more = PyLong_FromLongLong(count + 1);
    return more == NULL ? BROKEN : PyList_SetItem(list, place, more);
}

/* Return an object in a slot if it is of the class that is known, else NULL; borrowed. */
static inline PyObject *
known_at(PyObject *object, Py_ssize_t offset, PyTypeObject *class)
{
    PyObject *found = slot(object, offset);
    return found != NULL && Py_IS_TYPE(found, class) ? found : NULL;
}

/* Forget what a call has returned; NULL is an error. */
static int
done_with(PyObject *answer)
{
    if (answer == NULL)
        return BROKEN;
    Py_DECREF(answer);
    return 0;
}

/* Return the offset of a slot of a class; -1 with an exception if it has none by this name. */
static Py_ssize_t
offset_of(PyTypeObject *class, const char *name)
{
    PyObject *found = PyObject_GetAttrString((PyObject *)class, name);
    if (found == NULL)
        return -1;
    Py_ssize_t offset = -1;
    if (Py_IS_TYPE(found, &PyMemberDescr_Type) && ((PyMemberDescrObject *)found)->d_member->type == T_OBJECT_EX)
        offset = ((PyMemberDescrObject *)found)->d_member->offset;
    else
        PyErr_Format(PyExc_TypeError, "%s.%s is not a slot", class->tp_name, name);
    Py_DECREF(found);
    return offset;
}

/* Return the number of a transport's descriptor, as far as it has ever been read here; else -1. */
static int
number_of(Hub *self, PyObject *transport)
{
    PyObject *number = slot(transport, self->at.transport.descriptor);
    return number != NULL && PyLong_CheckExact(number) ? (int)PyLong_AsLong(number) : -1;
}

/* Whether an object is a transport of ours: one of a few classes, so that their bases need not be walked every time. */
static int
is_ours(Hub *self, PyObject *object)
{
    for (int i = 0; i < KNOWN_TYPES; i++)
        if (Py_TYPE(object) == self->known[i])
            return 1;
    return PyObject_TypeCheck(object, self->transport_type);
}

/* Return the seconds that sessions count by, as a new float. */
static PyObject *
read_seconds(Hub *self)
{
    if (!self->wall)
        return PyObject_CallNoArgs(self->clock);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return PyFloat_FromDouble((double)now.tv_sec + (double)now.tv_nsec * 1e-9);
}

/* -- bytes on their way ------------------------------------------------------------------------------------------ */

static int
lose(Hub *self, PyObject *transport, PyObject *why)
{
    PyObject *answer = PyObject_CallFunctionObjArgs(self->lost, transport, why, Py_True, NULL);
    if (answer == NULL)
        return BROKEN;
    Py_DECREF(answer);
    return IN_PYTHON;
}

/* Watch a descriptor. Events come when something comes, and do not come again for what was left unread: the kernel has
 * to look at every descriptor once, not twice. So whoever may have left something calls `watch_again`. */
static int
watch(Hub *self, int descriptor, uint32_t generation, int how)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    event.data.u64 = (uint64_t)generation << 32 | (uint32_t)descriptor;
    return epoll_ctl(self->epoll, how, descriptor, &event);
}

/* Have one more event for a descriptor if there is something to read, unless it is another transport's by now. */
static void
watch_again(Hub *self, int descriptor, uint32_t generation)
{
    if (descriptor < self->size && self->entries[descriptor].transport != NULL &&
        self->entries[descriptor].generation == generation)
        (void)watch(self, descriptor, generation, EPOLL_CTL_MOD);
}

/* Let a transport read as ever, before anything was read here. */
static int
read_in_python(Hub *self, int descriptor, PyObject *transport)
{
    uint32_t generation = self->entries[descriptor].generation;
    PyObject *why = PyObject_CallMethodNoArgs(transport, name_doRead);
    watch_again(self, descriptor, generation); /* nobody says how much it has read */
    if (why == NULL)
        return BROKEN;
    int done = why == Py_None ? IN_PYTHON : lose(self, transport, why);
    Py_DECREF(why);
    return done;
}

/* Give a protocol what was read here. */
static int
pass_on(PyObject *protocol, const unsigned char *data, Py_ssize_t size)
{
    PyObject *chunk = PyBytes_FromStringAndSize((const char *)data, size);
    if (chunk == NULL)
        return BROKEN;
    PyObject *answer = PyObject_CallMethodOneArg(protocol, name_dataReceived, chunk);
    Py_DECREF(chunk);
    if (answer == NULL)
        return BROKEN;
    Py_DECREF(answer);
    return IN_PYTHON;
}

/* Read a descriptor; return the size, 0 for nothing now, BROKEN with the connection's end in `why`. */
static Py_ssize_t
receive(Hub *self, int descriptor, PyObject **why)
{
    Py_ssize_t size = recv(descriptor, self->buffer, BUFFER_SIZE, 0);
    if (size == BUFFER_SIZE || (size < 0 && errno == EINTR))
        watch_again(self, descriptor, self->entries[descriptor].generation);
    if (size > 0)
        return size;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return 0;
    *why = size == 0 ? self->done : self->broken;
    return BROKEN;
}

/* Send to a transport that is writable. What its kernel does not take, it gets as ever: it queues, or finds what is
 * wrong. */
static int
transmit(Hub *self, PyObject *transport, const unsigned char *data, Py_ssize_t size)
{
    Py_ssize_t sent = send(number_of(self, transport), data, (size_t)size, MSG_NOSIGNAL);
    if (sent == size)
        return IN_C;
    if (sent < 0)
        sent = 0;
    PyObject *rest = PyBytes_FromStringAndSize((const char *)data + sent, size - sent);
    if (rest == NULL)
        return BROKEN;
    PyObject *answer = PyObject_CallMethodOneArg(transport, name_write, rest);
    Py_DECREF(rest);
    if (answer == NULL)
        return BROKEN;
    Py_DECREF(answer);
    return IN_PYTHON;
}

/* Return the transport of a session if `transmit` can send by it now, else NULL; borrowed. */
static PyObject *
writable(Hub *self, PyObject *session, Py_ssize_t offset)
{
    PyObject *transport = slot(session, offset);
    if (transport == NULL || !is_ours(self, transport) || !meets(transport, &self->writable))
        return NULL;
    return number_of(self, transport) >= 0 ? transport : NULL;
}

/* -- exchanges --------------------------------------------------------------------------------------------------- */

/* Return the tracker of a client session if it is a plain one, else NULL; borrowed. */
static Responses *
tracker_of(Hub *self, PyObject *client)
{
    return (Responses *)known_at(client, self->at.client.tracker, self->tracker_type);
}

/* Return what a client session counts by, if that is of the class that is known, else NULL; borrowed. */
static PyObject *
counts_of(Hub *self, PyObject *client)
{
    return known_at(client, self->at.client.counts, self->counts_type);
}

/* Return the class of sizes that a size belongs to. */
static int
class_of(Hub *self, long long size)
{
    int class = 0;
    while (class < self->classes && self->sizes[class] < size)
        class++;
    return class;
}

/* Return the place of a command's kind; the last one is that of all others. */
static Py_ssize_t
kind_of(Hub *self, const unsigned char *packet, Py_ssize_t size)
{
    Py_ssize_t kinds = PyTuple_GET_SIZE(self->kinds);
    for (Py_ssize_t kind = 0; packet[4] == COM_QUERY && size >= TEXT + 3 && kind < kinds; kind++)
        if (has_word(packet + TEXT, 3, PyBytes_AS_STRING(PyTuple_GET_ITEM(self->kinds, kind))))
            return kind;
    return kinds;
}

/* Count a command by its kind and its size, as Counts.asked does; short SELECTs are what is left. */
static int
count_command(Hub *self, PyObject *counts, const unsigned char *packet, Py_ssize_t size)
{
    Py_ssize_t kind = kind_of(self, packet, size), kinds = PyTuple_GET_SIZE(self->kinds) + 1;
    if (size <= self->small && kind == 0)
        return 0;
    PyObject *requests = slot(counts, self->at.counts.requests);
    if (requests == Py_None) {
        PyObject *head = PyBytes_FromStringAndSize((const char *)packet, size < 8 ? size : 8);
        if (head == NULL)
            return BROKEN;
        Py_INCREF(counts);
        PyObject *answer = PyObject_CallMethodOneArg(counts, name_asked, head);
        Py_DECREF(counts);
        Py_DECREF(head);
        return done_with(answer);
    }
    if (count_in(requests, kind) < 0 || count_in(requests, kinds + class_of(self, size)) < 0)
        return BROKEN;
    return size - 4 > self->large ? count_in(requests, kinds + self->classes + 1) : 0;
}

/* Remember a command that begins, as Conversation.dataReceived and forward do. */
static int
note_command(Hub *self, PyObject *client, PyObject *server, int shape, Py_ssize_t size)
{
    Responses *tracker = tracker_of(self, client);
    PyObject *counts = counts_of(self, client);
    const unsigned char *packet = self->buffer;
    Py_ssize_t shown = size - 4 < self->shown ? size - 4 : self->shown;
    if (add_to(client, self->at.client.bytes_in, size) < 0)
        return BROKEN;
    begin_exchange(tracker, shape);
    if (set_slot(client, self->at.client.noted, PyLong_FromLongLong(tracker->now.number)) < 0 ||
        set_slot(client, self->at.client.statement, PyBytes_FromStringAndSize((const char *)packet + 4, shown)) < 0 ||
        set_slot(client, self->at.client.since, read_seconds(self)) < 0 ||
        add_to(server, self->at.server.bytes_out, size) < 0)
        return BROKEN;
    return count_command(self, counts, packet, size);
}

/* -- prepared statements: as BinaryStatements does when there is nothing to tell but another number --------------- */

static unsigned long
number_in(const unsigned char *packet)
{
    const unsigned char *at = packet + TEXT;
    return at[0] | (unsigned long)at[1] << 8 | (unsigned long)at[2] << 16 | (unsigned long)at[3] << 24;
}

/* Whether an execute tells the types of parameters that the server knows already, or none. */
static int
agrees_in_types(Hub *self, PyObject *statement, PyObject *known, const unsigned char *packet, Py_ssize_t size)
{
    PyObject *types = slot(statement, self->at.statement.types);
    long long parameters = number_at(statement, self->at.statement.parameters);
    if (PyErr_Occurred() || parameters < 0)
        return 0;
    if (parameters == 0)
        return 1;
    if (!PyBytes_CheckExact(types) || PyBytes_GET_SIZE(types) != 2 * parameters)
        return 0;
    PyObject *there = slot(known, self->at.known.types);
    if (there != types && (!PyBytes_CheckExact(there) || PyBytes_GET_SIZE(there) != PyBytes_GET_SIZE(types) ||
                           memcmp(PyBytes_AS_STRING(there), PyBytes_AS_STRING(types), (size_t)(2 * parameters)) != 0))
        return 0;
    Py_ssize_t flag = EXECUTE_NULLS + (parameters + 7) / 8;
    if (flag >= size)
        return 0;
    if (packet[flag] == 0)
        return 1;
    return flag + 1 + 2 * parameters <= size &&
           memcmp(packet + flag + 1, PyBytes_AS_STRING(types), (size_t)(2 * parameters)) == 0;
}

/* Return the statement of a server session that an execute is of, if only its number has to be changed; else NULL,
 * with or without an exception. Borrowed. */
static PyObject *
find_known(Hub *self, PyObject *binary, PyObject *server, const unsigned char *packet, Py_ssize_t size)
{
    if (packet[4] != COM_STMT_EXECUTE || size < EXECUTE_NULLS || packet[TEXT + 4] != 0)
        return NULL; /* cut, or it asks for a cursor */
    PyObject *all = known_at(binary, self->at.binary.all, self->statements_type);
    PyObject *prepared = known_at(server, self->at.server.prepared, self->prepared_type);
    if (all == NULL || prepared == NULL || !meets(all, &self->keeping))
        return NULL;
    PyObject *number = PyLong_FromUnsignedLong(number_in(packet));
    if (number == NULL)
        return NULL;
    PyObject *statement = PyDict_GetItemWithError(slot(all, self->at.statements.by_number), number);
    Py_DECREF(number);
    if (statement == NULL || !Py_IS_TYPE(statement, self->statement_type) || !meets(statement, &self->passing))
        return NULL;
    PyObject *known = PyDict_GetItemWithError(slot(prepared, self->at.prepared.by_statement), statement);
    if (known == NULL || !Py_IS_TYPE(known, self->known_type) || !agrees_in_types(self, statement, known, packet, size))
        return NULL;
    return known;
}

/* Begin the exchange of a command of a client that has prepared statements; `known` is NULL if it is of none. */
static int
begin_prepared(Hub *self, PyObject *binary, PyObject *server, PyObject *known, unsigned char *packet)
{
    PyObject *statement = known != NULL ? slot(known, self->at.known.statement) : Py_None;
    if (set_slot(binary, self->at.binary.code, PyLong_FromLong(packet[4])) < 0 ||
        set_slot(binary, self->at.binary.statement, Py_NewRef(statement)) < 0 ||
        set_slot(binary, self->at.binary.known, Py_NewRef(known != NULL ? known : Py_None)) < 0 ||
        set_slot(binary, self->at.binary.own, Py_NewRef(Py_None)) < 0 ||
        set_slot(binary, self->at.binary.preparing, Py_NewRef(Py_False)) < 0)
        return BROKEN;
    if (known == NULL)
        return 0;
    /* It is the last one used now: what was used first is closed first. The slots above keep both alive. */
    PyObject *order = slot(slot(server, self->at.server.prepared), self->at.prepared.by_statement);
    if (PyDict_DelItem(order, statement) < 0 || PyDict_SetItem(order, statement, known) < 0)
        return BROKEN;
    unsigned long number = PyLong_AsUnsignedLong(slot(known, self->at.known.number));
    if (PyErr_Occurred())
        return BROKEN;
    for (int i = 0; i < 4; i++)
        packet[TEXT + i] = (unsigned char)(number >> 8 * i);
    return 0;
}

/* Whether nothing is to be done at the end of an exchange but `end_prepared`. */
static int
ends_prepared(Hub *self, PyObject *client, unsigned int status)
{
    PyObject *binary = slot(client, self->at.client.binary);
    if (binary == Py_None)
        return 1;
    if (binary == NULL || !Py_IS_TYPE(binary, self->binary_type))
        return 0;
    PyObject *known = slot(binary, self->at.binary.known);
    if (known == Py_None)
        return 1;
    if (known == NULL || !Py_IS_TYPE(known, self->known_type) || status & CURSOR_EXISTS)
        return 0;
    PyObject *all = known_at(binary, self->at.binary.all, self->statements_type);
    PyObject *statement = known_at(known, self->at.known.statement, self->statement_type);
    if (all == NULL || statement == NULL || !meets(all, &self->keeping) || !meets(statement, &self->passing))
        return 0;
    return number_at(binary, self->at.binary.code) == COM_STMT_EXECUTE;
}

static int
end_prepared(Hub *self, PyObject *client)
{
    PyObject *binary = slot(client, self->at.client.binary);
    if (binary == Py_None || slot(binary, self->at.binary.known) == Py_None)
        return 0;
    PyObject *known = slot(binary, self->at.binary.known);
    PyObject *types = slot(slot(known, self->at.known.statement), self->at.statement.types);
    if (set_slot(known, self->at.known.types, Py_XNewRef(types)) < 0)
        return BROKEN;
    return set_slot(binary, self->at.binary.known, Py_NewRef(Py_None));
}

/* -- commands ---------------------------------------------------------------------------------------------------- */

/* Send a plain command on; `known` is what it executes, or NULL. */
static int
forward(Hub *self, PyObject *client, PyObject *server, PyObject *out, PyObject *known, int shape, Py_ssize_t size)
{
    PyObject *binary = slot(client, self->at.client.binary);
    if (note_command(self, client, server, shape, size) < 0)
        return BROKEN;
    if (binary != Py_None && begin_prepared(self, binary, server, known, self->buffer) < 0)
        return BROKEN;
    return transmit(self, out, self->buffer, size);
}

/* Serve a client that has sent something. */
static int
serve_client(Hub *self, int descriptor, PyObject *transport, PyObject *client)
{
    Responses *tracker = tracker_of(self, client);
    PyObject *server = slot(client, self->at.client.bound);
    PyObject *out = NULL;
    if (tracker != NULL && tracker->now.phase == IDLE && meets(client, &self->asking) &&
        meets((PyObject *)tracker, &self->tracking) && counts_of(self, client) != NULL && server != NULL &&
        Py_IS_TYPE(server, self->server_type) && meets(server, &self->serving) &&
        slot(server, self->at.server.owner) == client)
        out = writable(self, server, self->at.server.transport);
    if (out == NULL)
        return read_in_python(self, descriptor, transport);
    PyObject *why;
    Py_ssize_t size = receive(self, descriptor, &why);
    if (size <= 0)
        return size == 0 ? IN_C : lose(self, transport, why);
    if (read_plain(&self->plain, slot((PyObject *)tracker, self->at.tracker.plain)) == FAILED)
        return BROKEN;
    int shape = plain_shape(self->buffer, size, &self->plain);
    PyObject *binary = slot(client, self->at.client.binary), *known = NULL;
    if (shape != UNKNOWN && binary != Py_None && is_about_statement(self->buffer)) {
        known = binary != NULL && Py_IS_TYPE(binary, self->binary_type)
                    ? find_known(self, binary, server, self->buffer, size)
                    : NULL;
        if (PyErr_Occurred())
            return BROKEN;
        if (known == NULL)
            shape = UNKNOWN;
    }
    if (shape == UNKNOWN)
        return pass_on(client, self->buffer, size);
    Py_INCREF(server);
    Py_INCREF(out);
    Py_XINCREF(known);
    int done = forward(self, client, server, out, known, shape, size);
    Py_XDECREF(known);
    Py_DECREF(out);
    Py_DECREF(server);
    return done;
}

/* -- responses --------------------------------------------------------------------------------------------------- */

/* Whether there is nothing to do at the end of a response but what `finish_plain` does. */
static int
ends_plain(Hub *self, PyObject *client, PyObject *server, Responses *tracker)
{
    return PyTuple_GET_SIZE(tracker->changes) == 0 && meets(client, &self->ending) &&
           meets((PyObject *)tracker, &self->tracking) && meets(server, &self->serving) &&
           slot(client, self->at.client.bound) == server && counts_of(self, client) != NULL &&
           known_at(client, self->at.client.state, self->state_type) != NULL &&
           ends_prepared(self, client, tracker->now.status);
}

/* Count a response in its class of sizes, as Conversation.responded does. */
static int
count_response(Hub *self, PyObject *client, PyObject *counts)
{
    long long all = number_at(client, self->at.client.bytes_out), before = number_at(counts, self->at.counts.told);
    if (PyErr_Occurred() || count_in(slot(counts, self->at.counts.responses), class_of(self, all - before)) < 0)
        return BROKEN;
    return set_slot(counts, self->at.counts.told, Py_NewRef(slot(client, self->at.client.bytes_out)));
}

/* Remember new flags, and that a transaction has begun or ended, as Conversation._status_changed does. */
static int
change_status(Hub *self, PyObject *client, PyObject *counts, unsigned int status, double now)
{
    long long before = number_at(client, self->at.client.status);
    double since = seconds_at(client, self->at.client.since);
    if (PyErr_Occurred() || set_slot(client, self->at.client.status, PyLong_FromUnsignedLong(status)) < 0)
        return BROKEN;
    if ((status & IN_TRANSACTION) == ((unsigned int)before & IN_TRANSACTION))
        return 0;
    if (status & IN_TRANSACTION) {
        if (set_slot(client, self->at.client.transaction_since, PyFloat_FromDouble(since)) < 0)
            return BROKEN;
        return set_slot(counts, self->at.counts.busy_before, Py_XNewRef(slot(counts, self->at.counts.busy)));
    }
    double began = seconds_at(client, self->at.client.transaction_since);
    double busy = seconds_at(counts, self->at.counts.busy) - seconds_at(counts, self->at.counts.busy_before);
    if (PyErr_Occurred() || add_to(client, self->at.client.transactions, 1) < 0 ||
        add_seconds(counts, self->at.counts.transactions, now - began) < 0 ||
        add_seconds(counts, self->at.counts.idle, since - began - busy) < 0)
        return BROKEN;
    PyObject *state = slot(client, self->at.client.state), *pins = slot(state, self->at.state.pins);
    if (pins != NULL && PyAnySet_Check(pins) && PySet_GET_SIZE(pins) == 0)
        return 0; /* nothing was set for that transaction alone */
    return done_with(PyObject_CallMethodNoArgs(state, name_transaction_ended));
}

/* Remember the last insert id, as Conversation.responded does. */
static int
note_insert(Hub *self, PyObject *client, PyObject *server, unsigned long long insert_id)
{
    PyObject *number = PyLong_FromUnsignedLongLong(insert_id);
    if (number == NULL)
        return BROKEN;
    PyObject *answer = PyObject_CallMethodOneArg(slot(client, self->at.client.state), name_inserted, number);
    Py_DECREF(number);
    if (done_with(answer) < 0)
        return BROKEN;
    return set_slot(client, self->at.client.inserted_on, Py_NewRef(server));
}

/* Do what Conversation.responded and finished do when there is nothing else to do. What is called of Python only
 * remembers something. */
static int
finish_plain(Hub *self, PyObject *client, PyObject *server, Responses *tracker)
{
    PyObject *counts = counts_of(self, client), *state = slot(client, self->at.client.state);
    PyObject *known_status = slot(client, self->at.client.status), *now = read_seconds(self);
    if (now == NULL)
        return BROKEN;
    double moment = PyFloat_AsDouble(now), since = seconds_at(client, self->at.client.since);
    if (PyErr_Occurred() || end_prepared(self, client) < 0 || count_response(self, client, counts) < 0)
        goto broken;
    if ((known_status == NULL || !PyLong_CheckExact(known_status) ||
         PyLong_AsLong(known_status) != (long)tracker->now.status) &&
        change_status(self, client, counts, tracker->now.status, moment) < 0)
        goto broken;
    if (tracker->now.insert_id && note_insert(self, client, server, tracker->now.insert_id) < 0)
        goto broken;
    if (add_seconds(counts, self->at.counts.busy, moment - since) < 0)
        goto broken;
    if (set_slot(client, self->at.client.since, now) < 0 ||
        set_slot(server, self->at.server.versions, Py_XNewRef(slot(state, self->at.state.versions))) < 0)
        return BROKEN;
    return add_to(server, self->at.server.pickups, 1);
broken:
    Py_DECREF(now);
    return BROKEN;
}

/* Follow a chunk of a response by the tracker. Where Python has to see it, nothing has happened, and FAILED returns. */
static int
follow_plainly(Responses *tracker, const unsigned char *data, Py_ssize_t size)
{
    Standing before = tracker->now;
    PyObject *changes = Py_NewRef(tracker->changes);
    int ended = follow_chunk(tracker, data, size);
    if (ended == FAILED || (ended && tracker->now.error)) {
        PyErr_Clear();
        tracker->now = before;
        Py_SETREF(tracker->changes, changes);
        Py_SETREF(tracker->held, Py_NewRef(empty_bytes));
        return FAILED;
    }
    Py_DECREF(changes);
    return ended;
}

/* Pass on a chunk of a response, which the tracker has seen. */
static int
deliver(Hub *self, PyObject *client, PyObject *server, PyObject *out, Responses *tracker, int ended, Py_ssize_t size)
{
    if (add_to(server, self->at.server.bytes_in, size) < 0 || add_to(client, self->at.client.bytes_out, size) < 0)
        return BROKEN;
    int done = transmit(self, out, self->buffer, size);
    if (done == BROKEN || !ended)
        return done;
    if (done == IN_C && ends_plain(self, client, server, tracker))
        return finish_plain(self, client, server, tracker) < 0 ? BROKEN : IN_C;
    PyObject *answer = PyObject_CallMethodNoArgs(client, name_responded);
    if (answer == NULL)
        return BROKEN;
    Py_DECREF(answer);
    return IN_PYTHON;
}

/* Serve a server that has sent something. */
static int
serve_server(Hub *self, int descriptor, PyObject *transport, PyObject *server)
{
    PyObject *client = slot(server, self->at.server.owner);
    Responses *tracker = NULL;
    PyObject *out = NULL;
    if (client != NULL && Py_IS_TYPE(client, self->client_type) && meets(server, &self->serving))
        tracker = tracker_of(self, client);
    if (tracker != NULL && tracker->now.phase > INFILE && PyBytes_GET_SIZE(tracker->held) == 0)
        out = writable(self, client, self->at.client.transport);
    if (out == NULL)
        return read_in_python(self, descriptor, transport);
    PyObject *why;
    Py_ssize_t size = receive(self, descriptor, &why);
    if (size <= 0)
        return size == 0 ? IN_C : lose(self, transport, why);
    int ended = follow_plainly(tracker, self->buffer, size);
    if (ended == FAILED)
        return pass_on(server, self->buffer, size);
    Py_INCREF(client);
    Py_INCREF(tracker);
    Py_INCREF(out);
    int done = deliver(self, client, server, out, tracker, ended, size);
    Py_DECREF(out);
    Py_DECREF(tracker);
    Py_DECREF(client);
    return done;
}

/* Begin to load an object into the caches; NULL is allowed. */
static void
prefetch(PyObject *object, size_t size)
{
    for (size_t at = 0; object != NULL && at < size; at += CACHE_LINE)
        __builtin_prefetch((const char *)object + at);
}

/* -- events ------------------------------------------------------------------------------------------------------ */

/* Tell Python about a transport whose read has raised. */
static int
fail(Hub *self, PyObject *transport)
{
    PyObject *kind, *why, *trace;
    PyErr_Fetch(&kind, &why, &trace);
    PyErr_NormalizeException(&kind, &why, &trace);
    if (trace != NULL)
        PyException_SetTraceback(why, trace);
    PyObject *answer = PyObject_CallFunctionObjArgs(self->failed, transport, why, NULL);
    Py_XDECREF(kind);
    Py_XDECREF(why);
    Py_XDECREF(trace);
    if (answer == NULL)
        PyErr_WriteUnraisable(transport);
    Py_XDECREF(answer);
    return IN_PYTHON;
}

/* Serve one event, unless an earlier one of the same batch has taken its transport away. */
static int
serve(Hub *self, int descriptor, uint32_t generation, uint32_t events)
{
    if (descriptor >= self->size || self->entries[descriptor].transport == NULL ||
        self->entries[descriptor].generation != generation)
        return IN_C;
    PyObject *transport = Py_NewRef(self->entries[descriptor].transport);
    PyObject *protocol = Py_XNewRef(slot(transport, self->at.transport.protocol));
    int done;
    if (!(events & EPOLLIN))
        done = lose(self, transport, self->done); /* it hung up, and left nothing to read */
    else if (protocol != NULL && Py_IS_TYPE(protocol, self->client_type))
        done = serve_client(self, descriptor, transport, protocol);
    else if (protocol != NULL && Py_IS_TYPE(protocol, self->server_type))
        done = serve_server(self, descriptor, transport, protocol);
    else
        done = read_in_python(self, descriptor, transport);
    if (events & EPOLLRDHUP)
        watch_again(self, descriptor, generation); /* the end comes behind what was read */
    if (done == BROKEN)
        done = fail(self, transport);
    Py_XDECREF(protocol);
    Py_DECREF(transport);
    return done;
}

/* Begin to load what the next events of a batch will touch, each a step further: the transport, its session, and what
 * belongs to that. With hundreds of sessions none of it is in the caches, and each step would wait for the one before
 * it. */
static void
look_ahead(Hub *self, const struct epoll_event *events, int count, int next)
{
    for (int step = 0; step < 3 && next + step < count; step++) {
        int descriptor = (int)(events[next + step].data.u64 & 0xFFFFFFFF);
        PyObject *transport = descriptor < self->size ? self->entries[descriptor].transport : NULL;
        if (transport == NULL)
            continue;
        if (step == 2) {
            prefetch(transport, TRANSPORT_SIZE);
            continue;
        }
        PyObject *session = slot(transport, self->at.transport.protocol);
        if (session == NULL)
            continue;
        if (step == 1) {
            prefetch(session, TOUCHED);
        } else if (Py_IS_TYPE(session, self->client_type)) {
            prefetch(slot(session, self->at.client.tracker), sizeof(Responses));
            prefetch(slot(session, self->at.client.bound), TOUCHED);
        } else if (Py_IS_TYPE(session, self->server_type)) {
            prefetch(slot(session, self->at.server.owner), TOUCHED);
        }
    }
}

static double
read_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Wait for events; `left` are seconds, negative for ever. Other threads run meanwhile. */
static int
wait_for(Hub *self, struct epoll_event *events, double left)
{
    /* Up to the next millisecond, as Python's own epoll does: a timer must be due when the wait is over. */
    int patience = left < 0 ? -1 : left > 2e6 ? 2000000000 : (int)ceil(left * 1e3);
    int count;
    if (patience == 0)
        return epoll_wait(self->epoll, events, BATCH, 0);
    Py_BEGIN_ALLOW_THREADS
    count = epoll_wait(self->epoll, events, BATCH, patience);
    Py_END_ALLOW_THREADS
    return count;
}

PyDoc_STRVAR(run_doc, "run(timeout)\n--\n\n"
                      "Wait for events and serve them, for so many seconds at most (None: for ever), until one has\n"
                      "run Python code. Return whether the reactor's own descriptors have events.");

static PyObject *
Hub_run(Hub *self, PyObject *timeout)
{
    double seconds = -1;
    if (timeout != Py_None) {
        seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1 && PyErr_Occurred())
            return NULL;
        seconds = seconds < 0 ? 0 : seconds;
    }
    double left = seconds, end = seconds > 0 ? read_clock() + seconds : 0;
    for (;;) {
        struct epoll_event events[BATCH]; /* not the hub's: Python code may run the reactor once more */
        int count = wait_for(self, events, left), python = 0, reactor = 0;
        if (count < 0) {
            if (errno != EINTR)
                return PyErr_SetFromErrno(PyExc_OSError);
            python = 1;
        }
        for (int i = 0; i < count; i++) {
            look_ahead(self, events, count, i + 1);
            uint32_t generation = (uint32_t)(events[i].data.u64 >> 32);
            if (generation == REACTOR)
                reactor = 1;
            else
                python |= serve(self, (int)(events[i].data.u64 & 0xFFFFFFFF), generation, events[i].events);
        }
        if (PyErr_CheckSignals() < 0)
            return NULL;
        if (python || reactor || count == 0 || seconds == 0)
            return PyBool_FromLong(reactor);
        if (seconds > 0) {
            left = end - read_clock();
            if (left <= 0)
                Py_RETURN_FALSE;
        }
    }
}

/* -- what is read here ------------------------------------------------------------------------------------------- */

static int
make_room(Hub *self, int descriptor)
{
    if (descriptor < self->size)
        return 0;
    int size = self->size ? self->size : 64;
    while (size <= descriptor)
        size *= 2;
    Entry *entries = PyMem_Realloc(self->entries, (size_t)size * sizeof(Entry));
    if (entries == NULL) {
        PyErr_NoMemory();
        return BROKEN;
    }
    memset(entries + self->size, 0, (size_t)(size - self->size) * sizeof(Entry));
    self->entries = entries;
    self->size = size;
    return 0;
}

PyDoc_STRVAR(add_doc, "add(transport)\n--\n\nRead a transport from now on; it may be read already.");

static PyObject *
Hub_add(Hub *self, PyObject *transport)
{
    if (!is_ours(self, transport)) {
        PyErr_SetString(PyExc_TypeError, "not a transport of ours");
        return NULL;
    }
    PyObject *number = PyObject_CallMethodNoArgs(transport, name_fileno);
    if (number == NULL)
        return NULL;
    long descriptor = PyLong_AsLong(number);
    if ((descriptor == -1 && PyErr_Occurred()) || set_slot(transport, self->at.transport.descriptor, number) < 0) {
        Py_DECREF(number);
        return NULL;
    }
    if (descriptor < 0) {
        PyErr_SetString(PyExc_ValueError, "a transport that is closed");
        return NULL;
    }
    if (make_room(self, (int)descriptor) < 0)
        return NULL;
    if (self->entries[descriptor].transport == transport)
        Py_RETURN_NONE;
    self->generation = self->generation == UINT32_MAX ? 1 : self->generation + 1;
    int failed = watch(self, (int)descriptor, self->generation, EPOLL_CTL_ADD);
    if (failed && errno == EEXIST)
        failed = watch(self, (int)descriptor, self->generation, EPOLL_CTL_MOD);
    if (failed)
        return PyErr_SetFromErrno(PyExc_OSError);
    for (int i = 0; i < KNOWN_TYPES && self->known[i] != Py_TYPE(transport); i++)
        if (self->known[i] == NULL) {
            self->known[i] = (PyTypeObject *)Py_NewRef(Py_TYPE(transport));
            break;
        }
    PyObject *before = self->entries[descriptor].transport;
    self->entries[descriptor] = (Entry){Py_NewRef(transport), self->generation};
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

/* Return the descriptor that a transport is read by, or -1. */
static int
descriptor_of(Hub *self, PyObject *transport)
{
    int descriptor = number_of(self, transport);
    return descriptor >= 0 && descriptor < self->size && self->entries[descriptor].transport == transport ? descriptor
                                                                                                          : -1;
}

static void
take_out(Hub *self, int descriptor)
{
    struct epoll_event event = {0};
    /* One that was closed has left by itself. */
    (void)epoll_ctl(self->epoll, EPOLL_CTL_DEL, descriptor, &event);
    Py_CLEAR(self->entries[descriptor].transport);
}

PyDoc_STRVAR(remove_doc, "remove(transport)\n--\n\nRead a transport no more; it need not be read.");

static PyObject *
Hub_remove(Hub *self, PyObject *transport)
{
    if (!is_ours(self, transport)) {
        PyErr_SetString(PyExc_TypeError, "not a transport of ours");
        return NULL;
    }
    int descriptor = descriptor_of(self, transport);
    if (descriptor >= 0)
        take_out(self, descriptor);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(transports_doc, "transports()\n--\n\nReturn a list of those that are read here.");

static PyObject *
Hub_transports(Hub *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *found = PyList_New(0);
    for (int i = 0; found != NULL && i < self->size; i++)
        if (self->entries[i].transport != NULL && PyList_Append(found, self->entries[i].transport) < 0)
            Py_CLEAR(found);
    return found;
}

PyDoc_STRVAR(remove_all_doc, "remove_all()\n--\n\nRead none any more; return a list of those that were read.");

static PyObject *
Hub_remove_all(Hub *self, PyObject *ignored)
{
    PyObject *found = Hub_transports(self, ignored);
    if (found != NULL)
        for (int i = 0; i < self->size; i++)
            if (self->entries[i].transport != NULL)
                take_out(self, i);
    return found;
}

/* -- the type ---------------------------------------------------------------------------------------------------- */

static int
read_class(PyObject *layout, const char *name, PyTypeObject **class)
{
    PyObject *found = PyObject_GetAttrString(layout, name);
    if (found == NULL)
        return BROKEN;
    if (!PyType_Check(found)) {
        PyErr_Format(PyExc_TypeError, "%s is no class", name);
        Py_DECREF(found);
        return BROKEN;
    }
    Py_XSETREF(*class, (PyTypeObject *)found);
    return 0;
}

/* Read a mapping of names of slots to values; the layout keeps the values alive. */
static int
read_conditions(PyObject *layout, const char *name, PyTypeObject *class, Conditions *conditions)
{
    PyObject *found = PyObject_GetAttrString(layout, name), *key, *due;
    Py_ssize_t place = 0;
    if (found == NULL || !PyDict_Check(found) || PyDict_GET_SIZE(found) > MOST_CONDITIONS) {
        if (found != NULL)
            PyErr_Format(PyExc_TypeError, "%s is no mapping of at most %d names", name, MOST_CONDITIONS);
        Py_XDECREF(found);
        return BROKEN;
    }
    conditions->count = 0;
    while (PyDict_Next(found, &place, &key, &due)) {
        const char *slot_name = PyUnicode_AsUTF8(key);
        Py_ssize_t offset = slot_name != NULL ? offset_of(class, slot_name) : -1;
        if (offset < 0) {
            Py_DECREF(found);
            return BROKEN;
        }
        conditions->all[conditions->count++] = (Condition){offset, due};
    }
    Py_DECREF(found);
    return 0;
}

static int
read_offsets(Hub *self)
{
    const struct {
        PyTypeObject *class;
        const char *name;
        Py_ssize_t *offset;
    } slots[] = {
        {self->transport_type, "descriptor", &self->at.transport.descriptor},
        {self->transport_type, "protocol", &self->at.transport.protocol},
        {self->client_type, "transport", &self->at.client.transport},
        {self->client_type, "bound", &self->at.client.bound},
        {self->client_type, "tracker", &self->at.client.tracker},
        {self->client_type, "counts", &self->at.client.counts},
        {self->client_type, "state", &self->at.client.state},
        {self->client_type, "status", &self->at.client.status},
        {self->client_type, "statement", &self->at.client.statement},
        {self->client_type, "_noted", &self->at.client.noted},
        {self->client_type, "since", &self->at.client.since},
        {self->client_type, "bytes_out", &self->at.client.bytes_out},
        {self->client_type, "bytes_in", &self->at.client.bytes_in},
        {self->client_type, "binary", &self->at.client.binary},
        {self->client_type, "transactions", &self->at.client.transactions},
        {self->client_type, "transaction_since", &self->at.client.transaction_since},
        {self->client_type, "inserted_on", &self->at.client.inserted_on},
        {self->server_type, "transport", &self->at.server.transport},
        {self->server_type, "owner", &self->at.server.owner},
        {self->server_type, "bytes_in", &self->at.server.bytes_in},
        {self->server_type, "bytes_out", &self->at.server.bytes_out},
        {self->server_type, "pickups", &self->at.server.pickups},
        {self->server_type, "versions", &self->at.server.versions},
        {self->server_type, "prepared", &self->at.server.prepared},
        {self->tracker_type, "_plain", &self->at.tracker.plain},
        {self->counts_type, "told", &self->at.counts.told},
        {self->counts_type, "busy", &self->at.counts.busy},
        {self->counts_type, "responses", &self->at.counts.responses},
        {self->counts_type, "_requests", &self->at.counts.requests},
        {self->counts_type, "_busy_before", &self->at.counts.busy_before},
        {self->counts_type, "transactions", &self->at.counts.transactions},
        {self->counts_type, "idle", &self->at.counts.idle},
        {self->state_type, "versions", &self->at.state.versions},
        {self->state_type, "pins", &self->at.state.pins},
        {self->binary_type, "_all", &self->at.binary.all},
        {self->binary_type, "_code", &self->at.binary.code},
        {self->binary_type, "_known", &self->at.binary.known},
        {self->binary_type, "statement", &self->at.binary.statement},
        {self->binary_type, "own", &self->at.binary.own},
        {self->binary_type, "preparing", &self->at.binary.preparing},
        {self->statements_type, "_statements", &self->at.statements.by_number},
        {self->statement_type, "parameters", &self->at.statement.parameters},
        {self->statement_type, "types", &self->at.statement.types},
        {self->prepared_type, "_statements", &self->at.prepared.by_statement},
        {self->known_type, "statement", &self->at.known.statement},
        {self->known_type, "number", &self->at.known.number},
        {self->known_type, "types", &self->at.known.types},
    };
    for (size_t i = 0; i < sizeof(slots) / sizeof(*slots); i++) {
        *slots[i].offset = offset_of(slots[i].class, slots[i].name);
        if (*slots[i].offset < 0)
            return BROKEN;
    }
    return 0;
}

static int
read_number(PyObject *layout, const char *name, Py_ssize_t *number)
{
    PyObject *found = PyObject_GetAttrString(layout, name);
    if (found == NULL)
        return BROKEN;
    *number = PyLong_AsSsize_t(found);
    Py_DECREF(found);
    return *number == -1 && PyErr_Occurred() ? BROKEN : 0;
}

static int
read_sizes(Hub *self, PyObject *layout)
{
    PyObject *found = PyObject_GetAttrString(layout, "sizes");
    if (found == NULL)
        return BROKEN;
    int done = PyTuple_Check(found) && PyTuple_GET_SIZE(found) <= (Py_ssize_t)(sizeof(self->sizes) / sizeof(long long))
                   ? 0
                   : BROKEN;
    if (done == BROKEN)
        PyErr_SetString(PyExc_TypeError, "sizes are not a tuple of a few numbers");
    self->classes = done == BROKEN ? 0 : (int)PyTuple_GET_SIZE(found);
    for (int i = 0; i < self->classes && done == 0; i++) {
        self->sizes[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(found, i));
        done = self->sizes[i] == -1 && PyErr_Occurred() ? BROKEN : 0;
    }
    Py_DECREF(found);
    return done;
}

/* A tracker must be the machine of the very header that this file was compiled with. */
static int
check_tracker(PyTypeObject *tracker)
{
    PyObject *module = PyImport_ImportModule("odptwist.machines._response");
    PyObject *machine = module != NULL ? PyObject_GetAttrString(module, "Responses") : NULL;
    Py_XDECREF(module);
    if (machine == NULL)
        return BROKEN;
    int same = PyType_Check(machine) && PyType_IsSubtype(tracker, (PyTypeObject *)machine) &&
               ((PyTypeObject *)machine)->tp_basicsize == (Py_ssize_t)sizeof(Responses);
    Py_DECREF(machine);
    if (!same)
        PyErr_SetString(PyExc_TypeError, "trackers are not made of the machine in C");
    return same ? 0 : BROKEN;
}

static int
read_classes(Hub *self, PyObject *layout)
{
    const struct {
        const char *name;
        PyTypeObject **class;
    } classes[] = {
        {"transport", &self->transport_type},   {"client", &self->client_type},
        {"server", &self->server_type},         {"tracker", &self->tracker_type},
        {"counts", &self->counts_type},         {"state", &self->state_type},
        {"binary", &self->binary_type},         {"statements", &self->statements_type},
        {"statement", &self->statement_type},   {"prepared", &self->prepared_type},
        {"server_statement", &self->known_type},
    };
    for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++)
        if (read_class(layout, classes[i].name, classes[i].class) < 0)
            return BROKEN;
    return 0;
}

static int
read_kinds(Hub *self, PyObject *layout)
{
    self->kinds = PyObject_GetAttrString(layout, "kinds");
    if (self->kinds == NULL)
        return BROKEN;
    int due = PyTuple_CheckExact(self->kinds);
    for (Py_ssize_t i = 0; due && i < PyTuple_GET_SIZE(self->kinds); i++)
        due = PyBytes_CheckExact(PyTuple_GET_ITEM(self->kinds, i)) &&
              PyBytes_GET_SIZE(PyTuple_GET_ITEM(self->kinds, i)) == 3;
    if (!due)
        PyErr_SetString(PyExc_TypeError, "kinds are not a tuple of three letters each");
    return due ? 0 : BROKEN;
}

static int
read_layout(Hub *self, PyObject *layout)
{
    if (read_classes(self, layout) < 0 || read_conditions(layout, "writable", self->transport_type, &self->writable) < 0 ||
        read_conditions(layout, "asking", self->client_type, &self->asking) < 0 ||
        read_conditions(layout, "ending", self->client_type, &self->ending) < 0 ||
        read_conditions(layout, "tracking", self->tracker_type, &self->tracking) < 0 ||
        read_conditions(layout, "serving", self->server_type, &self->serving) < 0 ||
        read_conditions(layout, "keeping", self->statements_type, &self->keeping) < 0 ||
        read_conditions(layout, "passing", self->statement_type, &self->passing) < 0)
        return BROKEN;
    if (read_number(layout, "small", &self->small) < 0 || read_number(layout, "large", &self->large) < 0 ||
        read_number(layout, "shown", &self->shown) < 0 || read_kinds(self, layout) < 0 ||
        read_sizes(self, layout) < 0 || read_offsets(self) < 0 || check_tracker(self->tracker_type) < 0)
        return BROKEN;
    self->done = PyObject_GetAttrString(layout, "done");
    self->broken = PyObject_GetAttrString(layout, "broken");
    return self->done != NULL && self->broken != NULL ? 0 : BROKEN;
}

static char
is_wall_clock(PyObject *clock)
{
    PyObject *module = PyImport_ImportModule("time");
    PyObject *wall = module != NULL ? PyObject_GetAttrString(module, "time") : NULL;
    Py_XDECREF(module);
    Py_XDECREF(wall);
    PyErr_Clear();
    return wall == clock;
}

PyDoc_STRVAR(hub_doc, "Hub(descriptor, layout, clock, lost, failed)\n--\n\n"
                      "Reads transports; see odptwist.sessions.relaying.\n\n"
                      "Args:\n"
                      "    descriptor: the reactor's own epoll.\n"
                      "    layout: a `Layout`.\n"
                      "    clock: returns the seconds that sessions count by.\n"
                      "    lost: is called with a transport, why it has ended, and True.\n"
                      "    failed: is called with a transport and what its read has raised.");

static PyObject *
Hub_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    int descriptor;
    PyObject *layout, *clock, *lost, *failed;
    if (keywords != NULL && PyDict_GET_SIZE(keywords)) {
        PyErr_SetString(PyExc_TypeError, "Hub takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "iOOOO", &descriptor, &layout, &clock, &lost, &failed))
        return NULL;
    Hub *self = (Hub *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->epoll = -1;
    self->layout = Py_NewRef(layout);
    self->clock = Py_NewRef(clock);
    self->lost = Py_NewRef(lost);
    self->failed = Py_NewRef(failed);
    self->buffer = PyMem_Malloc(BUFFER_SIZE);
    if (self->buffer == NULL) {
        PyErr_NoMemory();
    } else if (read_layout(self, layout) == 0) {
        struct epoll_event event = {.events = EPOLLIN};
        event.data.u64 = (uint64_t)REACTOR << 32 | (uint32_t)descriptor;
        self->wall = is_wall_clock(clock);
        self->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (self->epoll >= 0 && epoll_ctl(self->epoll, EPOLL_CTL_ADD, descriptor, &event) == 0)
            return (PyObject *)self;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_DECREF(self);
    return NULL;
}

static int
Hub_traverse(Hub *self, visitproc visit, void *arg)
{
    for (int i = 0; i < self->size; i++)
        Py_VISIT(self->entries[i].transport);
    Py_VISIT(self->layout);
    Py_VISIT(self->clock);
    Py_VISIT(self->lost);
    Py_VISIT(self->failed);
    return 0;
}

static int
Hub_clear(Hub *self)
{
    for (int i = 0; i < self->size; i++)
        Py_CLEAR(self->entries[i].transport);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->lost);
    Py_CLEAR(self->failed);
    return 0;
}

static void
Hub_dealloc(Hub *self)
{
    PyObject_GC_UnTrack(self);
    Hub_clear(self);
    PyTypeObject *classes[] = {self->transport_type, self->client_type, self->server_type,
                               self->tracker_type,   self->counts_type, self->state_type,
                               self->binary_type,    self->statements_type, self->statement_type,
                               self->prepared_type,  self->known_type};
    for (size_t i = 0; i < sizeof(classes) / sizeof(*classes); i++)
        Py_XDECREF(classes[i]);
    for (int i = 0; i < KNOWN_TYPES; i++)
        Py_XDECREF(self->known[i]);
    Py_XDECREF(self->plain.set);
    Py_CLEAR(self->kinds);
    Py_CLEAR(self->done);
    Py_CLEAR(self->broken);
    Py_CLEAR(self->layout);
    if (self->epoll >= 0)
        close(self->epoll);
    PyMem_Free(self->entries);
    PyMem_Free(self->buffer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"run", (PyCFunction)Hub_run, METH_O, run_doc},
    {"add", (PyCFunction)Hub_add, METH_O, add_doc},
    {"remove", (PyCFunction)Hub_remove, METH_O, remove_doc},
    {"transports", (PyCFunction)Hub_transports, METH_NOARGS, transports_doc},
    {"remove_all", (PyCFunction)Hub_remove_all, METH_NOARGS, remove_all_doc},
    {NULL},
};

static PyTypeObject HubType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "odptwist.sessions._hub.Hub",
    .tp_doc = hub_doc,
    .tp_basicsize = sizeof(Hub),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = Hub_new,
    .tp_traverse = (traverseproc)Hub_traverse,
    .tp_clear = (inquiry)Hub_clear,
    .tp_dealloc = (destructor)Hub_dealloc,
    .tp_methods = methods,
};

PyDoc_STRVAR(shape_of_doc, "shape_of(chunk, plain)\n--\n\n"
                           "Return the shape of the response if a chunk is one whole command that needs no look,\n"
                           "else 0. `plain` is from `plain_prefixes`.");

static PyObject *
shape_of(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *chunk, *plain;
    if (!PyArg_ParseTuple(arguments, "SO!", &chunk, &PyFrozenSet_Type, &plain))
        return NULL;
    Plain known = {0};
    if (read_plain(&known, plain) == FAILED)
        return NULL;
    int shape = plain_shape((const unsigned char *)PyBytes_AS_STRING(chunk), PyBytes_GET_SIZE(chunk), &known);
    Py_DECREF(known.set);
    return PyLong_FromLong(shape);
}

static PyMethodDef functions[] = {
    {"shape_of", shape_of, METH_VARARGS, shape_of_doc},
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_hub", "The relay, in C.", -1, functions};

PyMODINIT_FUNC
PyInit__hub(void)
{
    const struct {
        PyObject **place;
        const char *text;
    } names[] = {{&name_doRead, "doRead"},       {&name_dataReceived, "dataReceived"},
                 {&name_write, "write"},         {&name_asked, "asked"},
                 {&name_responded, "responded"}, {&name_fileno, "fileno"},
                 {&name_inserted, "inserted"},   {&name_transaction_ended, "transaction_ended"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (*names[i].place == NULL && (*names[i].place = PyUnicode_InternFromString(names[i].text)) == NULL)
            return NULL;
    if (load_machine() == FAILED)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddType(made, &HubType) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
