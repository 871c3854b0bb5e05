/* The relay's own object, and what it knows of the sessions' classes: the `Layout` of relaying.py, read once. */
#ifndef ODPTWIST_LAYOUT_H
#define ODPTWIST_LAYOUT_H

#include "../machines/_command.h"
#include "_slots.h"
#include <stdint.h>
#include <time.h>

/* Classes of transports that are known to be ours: for TCP and Unix sockets, of clients and of servers. */
#define KNOWN_TYPES 4

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
        Py_ssize_t binary, choice, again, transactions, transaction_since, inserted_on;
    } client;
    struct {
        Py_ssize_t transport, owner, bytes_in, bytes_out, pickups, versions, prepared;
    } server;
    struct {
        Py_ssize_t plain;
    } tracker;
    struct {
        Py_ssize_t told, taken, busy, responses, requests, busy_before, transactions, idle;
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
    PyTypeObject *transport_type, *client_type, *server_type, *tracker_type, *counts_type, *state_type, *choice_type;
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
        {self->client_type, "choice", &self->at.client.choice},
        {self->client_type, "_again", &self->at.client.again},
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
        {self->counts_type, "taken", &self->at.counts.taken},
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
        {"transport", &self->transport_type}, {"client", &self->client_type},
        {"server", &self->server_type},       {"tracker", &self->tracker_type},
        {"counts", &self->counts_type},       {"state", &self->state_type},
        {"choice", &self->choice_type},       {"binary", &self->binary_type},
        {"statements", &self->statements_type}, {"statement", &self->statement_type},
        {"prepared", &self->prepared_type},   {"server_statement", &self->known_type},
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
    if (read_classes(self, layout) < 0 ||
        read_conditions(layout, "writable", self->transport_type, &self->writable) < 0 ||
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

#endif
