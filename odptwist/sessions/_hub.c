/* The relay: an epoll of its own, the reactor's epoll nested in it, and the plain exchange without a call from Python.
 *
 * odptwist/sessions/relaying.py says what it is and what it asks of the sessions before every event. Nothing about a
 * session is kept here: its slots are read where they are (_slots.h), by the layout of their classes (_layout.h).
 * What a plain exchange does is in _exchanges.h; here are the epoll, its events, and the type.
 */
#define _GNU_SOURCE 1
#include "_exchanges.h"
#include <math.h>

/* Events of one wait at most. All are served before the reactor has its turn; each is one read. */
#define BATCH 256
#define CACHE_LINE 64
/* Bytes of a transport that its slots are in. */
#define TRANSPORT_SIZE 80
/* Bytes of a session that nearly all slots in use are in; the rest is about logins and ends. */
#define TOUCHED 512
/* The number of the reactor's own descriptor among events: no transport has it, for generations begin with 1. */
#define REACTOR 0

/* -- events ------------------------------------------------------------------------------------------------------ */

/* Begin to load an object into the caches; NULL is allowed. */
static void
prefetch(PyObject *object, size_t size)
{
    for (size_t at = 0; object != NULL && at < size; at += CACHE_LINE)
        __builtin_prefetch((const char *)object + at);
}

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
                               self->tracker_type,   self->counts_type, self->state_type,       self->choice_type,
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
                 {&name_inserted, "inserted"},   {&name_transaction_ended, "transaction_ended"},
                 {&name_choose, "choose"},       {&name_send_on, "send_on"},
                 {&name_ended, "ended"}};
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
