/* The type of the response machine in C, which Python's trackers are made of; see _response.h. */
#include "_response.h"

static PyObject *
Responses_server(Responses *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "a chunk must be bytes");
        return NULL;
    }
    if (self->now.phase <= INFILE) {
        PyErr_SetString(WireError, "the server sent something unasked");
        return NULL;
    }
    PyObject *joined = NULL;
    if (PyBytes_GET_SIZE(self->held)) {
        joined = self->held;
        self->held = Py_NewRef(empty_bytes);
        PyBytes_Concat(&joined, data);
        if (joined == NULL)
            return NULL;
        data = joined;
    }
    int ended = follow_chunk(self, (const unsigned char *)PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data));
    Py_XDECREF(joined);
    return ended == FAILED ? NULL : PyBool_FromLong(ended);
}

static PyObject *
Responses_begin(Responses *self, PyObject *argument)
{
    long shape = PyLong_AsLong(argument);
    if (shape == -1 && PyErr_Occurred())
        return NULL;
    begin_exchange(self, (int)shape);
    Py_RETURN_NONE;
}

static PyObject *
Responses_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    Responses *self = (Responses *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->held = Py_NewRef(empty_bytes);
        self->changes = Py_NewRef(empty_tuple);
        self->now.shape = NONE;
    }
    return (PyObject *)self;
}

static int
Responses_init(Responses *self, PyObject *arguments, PyObject *keywords)
{
    int deprecate_eof, local_files = 1;
    static char *names[] = {"deprecate_eof", "local_files", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "p|p", names, &deprecate_eof, &local_files))
        return -1;
    self->deprecate_eof = (char)deprecate_eof;
    self->local_files = (char)local_files;
    return 0;
}

static void
Responses_dealloc(Responses *self)
{
    Py_CLEAR(self->held);
    Py_CLEAR(self->changes);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef members[] = {
    {"_phase", T_INT, offsetof(Responses, now.phase), 0, NULL},
    {"_shape", T_INT, offsetof(Responses, now.shape), 0, NULL},
    {"_count", T_PYSSIZET, offsetof(Responses, now.count), 0, NULL},
    {"_skip", T_PYSSIZET, offsetof(Responses, now.skip), 0, NULL},
    {"_held", T_OBJECT_EX, offsetof(Responses, held), READONLY, NULL},
    {"_fragment", T_BOOL, offsetof(Responses, now.fragment), 0, NULL},
    {"answered", T_BOOL, offsetof(Responses, now.answered), 0, NULL},
    {"changes", T_OBJECT_EX, offsetof(Responses, changes), READONLY, NULL},
    {"status", T_UINT, offsetof(Responses, now.status), 0, NULL},
    {"error", T_UINT, offsetof(Responses, now.error), 0, NULL},
    {"insert_id", T_ULONGLONG, offsetof(Responses, now.insert_id), 0, NULL},
    {"number", T_LONGLONG, offsetof(Responses, now.number), 0, NULL},
    {"oks", T_LONGLONG, offsetof(Responses, now.oks), 0, NULL},
    {"result_sets", T_LONGLONG, offsetof(Responses, now.result_sets), 0, NULL},
    {NULL},
};

static PyObject *
Responses_give_up(Responses *self, PyObject *ignored)
{
    self->now.phase = IDLE;
    self->now.skip = 0;
    self->now.fragment = 0;
    Py_SETREF(self->held, Py_NewRef(empty_bytes));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"server", (PyCFunction)Responses_server, METH_O, "Follow a chunk of the server; see the Python machine."},
    {"begin", (PyCFunction)Responses_begin, METH_O, "Begin the exchange of a command; see the Python machine."},
    {"give_up", (PyCFunction)Responses_give_up, METH_NOARGS, "Expect nothing more; see the Python machine."},
    {NULL},
};

static PyTypeObject ResponsesType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "odptwist.machines._response.Responses",
    .tp_doc = "Follows responses; see odptwist.machines.response.",
    .tp_basicsize = sizeof(Responses),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = Responses_new,
    .tp_init = (initproc)Responses_init,
    .tp_dealloc = (destructor)Responses_dealloc,
    .tp_members = members,
    .tp_methods = methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_response", "The response machine, in C.", -1, NULL};

PyMODINIT_FUNC
PyInit__response(void)
{
    if (load_machine() == FAILED)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddType(made, &ResponsesType) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
