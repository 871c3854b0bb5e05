/* The response machine of odptwist/machines/response.py once more, in C: same states, same attributes, same errors.
 *
 * That module explains what happens here, and tests/machines/test_response.py holds the two against each other. Nothing
 * of the reader's data is kept but cut packets, and no pointer into it outlives a call.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

enum { IDLE, OURS, INFILE, HEADER, ASKED, COLUMNS, COLUMNS_EOF, ROWS, PASS, LAST };
enum { UNKNOWN, NONE, SIMPLE, RESULT, PREPARE, DEFINITIONS, STRING, FETCH, LOGIN, ENDLESS };

#define MAX_PAYLOAD 0xFFFFFF
#define TERMINAL_LIMIT (1024 * 1024)
#define MORE_RESULTS 0x0008
#define CURSOR_EXISTS 0x0040
#define STATE_CHANGED 0x4000

typedef struct {
    PyObject_HEAD
    int phase;
    int shape;
    Py_ssize_t count;
    Py_ssize_t skip;
    PyObject *held;
    PyObject *changes;
    char fragment;
    char deprecate_eof;
    char local_files;
    char answered;
    unsigned int status;
    unsigned int error;
    unsigned long long insert_id;
    long long number;
} Responses;

static PyObject *empty_bytes, *empty_tuple;
static PyObject *WireError, *MalformedPacket, *PacketTooLarge, *ResponseOverrun, *FileRefused;

/* What a packet has come to: a phase, or FAILED with an exception set. */
#define FAILED (-1)

static int
malformed(const char *text)
{
    PyErr_SetString(MalformedPacket, text);
    return FAILED;
}

static unsigned int
u16(const unsigned char *at)
{
    return at[0] | (unsigned int)at[1] << 8;
}

/* Read a length-encoded integer; return the position after it, or -1 if it is cut or impossible. */
static Py_ssize_t
lenenc(const unsigned char *data, Py_ssize_t at, Py_ssize_t end, unsigned long long *value)
{
    if (at < end) {
        unsigned char first = data[at];
        if (first < 0xFB) {
            *value = first;
            return at + 1;
        }
        Py_ssize_t size = first == 0xFC ? 2 : first == 0xFD ? 3 : first == 0xFE ? 8 : 0;
        if (size && at + 1 + size <= end) {
            *value = 0;
            for (Py_ssize_t i = size; i > 0; i--)
                *value = *value << 8 | data[at + i];
            return at + 1 + size;
        }
    }
    return -1;
}

static int
read_eof(Responses *self, const unsigned char *packet, Py_ssize_t length)
{
    if (length < 5)
        return malformed("an EOF packet without a status");
    self->status = u16(packet + 3);
    return 0;
}

static int
read_ok(Responses *self, const unsigned char *packet, Py_ssize_t length)
{
    unsigned long long affected, insert_id;
    Py_ssize_t at = lenenc(packet, 1, length, &affected);
    if (at >= 0)
        at = lenenc(packet, at, length, &insert_id);
    if (at < 0)
        return malformed("a length-encoded number that is cut or impossible");
    if (at + 2 > length)
        return malformed("an OK packet without a status");
    self->status = u16(packet + at);
    if (insert_id)
        self->insert_id = insert_id;
    if (self->status & STATE_CHANGED) {
        PyObject *one = Py_BuildValue("(y#)", (const char *)packet, length);
        if (one == NULL)
            return FAILED;
        PyObject *all = PySequence_Concat(self->changes, one);
        Py_DECREF(one);
        if (all == NULL)
            return FAILED;
        Py_SETREF(self->changes, all);
    }
    return 0;
}

/* Read a packet that may turn the response; return the next phase. */
static int
read_packet(Responses *self, int phase, const unsigned char *packet, Py_ssize_t length, unsigned char first)
{
    if (first == 0xFF) {
        if (length < 3)
            return malformed("an ERR packet without a code");
        self->error = u16(packet + 1);
        return IDLE;
    }
    if (phase == ROWS) {
        if ((self->deprecate_eof && length > 5 ? read_ok : read_eof)(self, packet, length) < 0)
            return FAILED;
        return self->status & MORE_RESULTS && self->shape == RESULT ? HEADER : IDLE;
    }
    if (phase == COLUMNS_EOF) {
        if (first != 0xFE || length > 5)
            return malformed("no EOF packet after column definitions");
        if (read_eof(self, packet, length) < 0)
            return FAILED;
        if (self->status & CURSOR_EXISTS)
            return self->status & MORE_RESULTS ? HEADER : IDLE;
        return ROWS;
    }
    switch (self->shape) {
    case RESULT:
        if (first == 0x00) {
            if (read_ok(self, packet, length) < 0)
                return FAILED;
            return self->status & MORE_RESULTS ? HEADER : IDLE;
        }
        if (first == 0xFB) {
            if (!self->local_files) {
                PyErr_SetString(FileRefused, "it asks for a file of the client's, who has not agreed to send any");
                return FAILED;
            }
            return INFILE;
        }
        if (first < 0xFB)
            self->count = first;
        else if (first == 0xFC && length == 3 && u16(packet + 1))
            self->count = u16(packet + 1);
        else if (first == 0xFD && length == 4 && (u16(packet + 1) || packet[3]))
            self->count = u16(packet + 1) | (Py_ssize_t)packet[3] << 16;
        else
            return malformed("a response that begins like nothing known");
        return COLUMNS;
    case SIMPLE:
        if (first == 0xFE)
            return read_eof(self, packet, length) < 0 ? FAILED : IDLE;
        if (first == 0x00)
            return read_ok(self, packet, length) < 0 ? FAILED : IDLE;
        return malformed("neither OK, ERR nor EOF");
    case PREPARE: {
        if (first != 0x00 || length < 9)
            return malformed("neither COM_STMT_PREPARE_OK nor ERR");
        Py_ssize_t columns = u16(packet + 5), parameters = u16(packet + 7);
        Py_ssize_t ends = self->deprecate_eof ? 0 : (columns > 0) + (parameters > 0);
        self->count = columns + parameters + ends;
        return self->count ? PASS : IDLE;
    }
    case LOGIN:
        if (first == 0x00)
            return read_ok(self, packet, length) < 0 ? FAILED : IDLE;
        if (first != 0xFE && first != 0x01)
            return malformed("neither OK, ERR nor a question, amid a login");
        return ASKED;
    default:
        return IDLE;
    }
}

/* Follow the packets of a chunk. Returns the phase after it, or FAILED; `position` is where the next packet begins. */
static int
follow(Responses *self, const unsigned char *data, Py_ssize_t size, int phase, char *fragment, Py_ssize_t *position)
{
    Py_ssize_t at = *position;
    while (at < size && phase) {
        Py_ssize_t left = size - at;
        const unsigned char *head = data + at;
        Py_ssize_t length = left < 3 ? 0 : head[0] | (Py_ssize_t)head[1] << 8 | (Py_ssize_t)head[2] << 16;
        int cut = left < 5;
        if (!cut) {
            unsigned char first = head[4];
            if (phase == ROWS) {
                if (first < 0xFE || *fragment || (first == 0xFE && length == MAX_PAYLOAD)) {
                    at += length + 4;
                    *fragment = length == MAX_PAYLOAD;
                    continue;
                }
                if (first == 0xFE && length > 8 && !self->deprecate_eof) {
                    at += length + 4;
                    continue;
                }
            } else if (phase == COLUMNS && first != 0xFF) {
                at += length + 4;
                if (!--self->count)
                    phase = self->deprecate_eof ? ROWS : COLUMNS_EOF;
                continue;
            } else if (phase == PASS && first != 0xFF) {
                at += length + 4;
                if (!--self->count)
                    phase = at > size ? LAST : IDLE;
                continue;
            }
            cut = left < length + 4;
            if (cut && length > TERMINAL_LIMIT) {
                PyErr_SetString(PacketTooLarge, "a response packet that ends nothing");
                return FAILED;
            }
            if (!cut) {
                if (length == 0 && self->shape != STRING)
                    return malformed("an empty packet in a response");
                phase = read_packet(self, phase, head + 4, length, first);
                if (phase == FAILED)
                    return FAILED;
                at += length + 4;
                if (phase == INFILE)
                    break;
                continue;
            }
        }
        if (left == 4 && length == 0) {
            at = size;
            if (*fragment)
                *fragment = 0;
            else if (self->shape == STRING)
                phase = IDLE;
            else
                return malformed("an empty packet in a response");
        } else {
            PyObject *held = PyBytes_FromStringAndSize((const char *)head, left);
            if (held == NULL)
                return FAILED;
            Py_SETREF(self->held, held);
            at = size;
        }
    }
    *position = at;
    return phase;
}

static PyObject *
Responses_server(Responses *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "a chunk must be bytes");
        return NULL;
    }
    if (self->phase <= INFILE) {
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
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    Py_ssize_t position = self->skip;
    if (position > size) {
        self->skip = position - size;
        self->answered = 1;
        Py_XDECREF(joined);
        Py_RETURN_FALSE;
    }
    if (self->phase == LAST)
        self->phase = IDLE;
    char fragment = self->fragment;
    int phase = follow(self, (const unsigned char *)PyBytes_AS_STRING(data), size, self->phase, &fragment, &position);
    Py_XDECREF(joined);
    if (phase == FAILED)
        return NULL;
    if (position < size) {
        if (phase != IDLE) {
            PyErr_SetString(WireError, "the server went on before the client's file had come");
            return NULL;
        }
        self->phase = IDLE;
        self->fragment = 0;
        self->skip = 0;
        PyObject *overrun = PyObject_CallFunction(ResponseOverrun, "n", size - position);
        if (overrun != NULL) {
            PyErr_SetObject(ResponseOverrun, overrun);
            Py_DECREF(overrun);
        }
        return NULL;
    }
    self->phase = phase;
    self->fragment = fragment;
    self->skip = position - size;
    self->answered = 1;
    return PyBool_FromLong(phase == IDLE);
}

static PyObject *
Responses_begin(Responses *self, PyObject *argument)
{
    long shape = PyLong_AsLong(argument);
    if (shape == -1 && PyErr_Occurred())
        return NULL;
    if (shape != NONE) {
        self->shape = (int)shape;
        self->phase = shape == FETCH || shape == DEFINITIONS || shape == ENDLESS ? ROWS : HEADER;
        self->number++;
        self->error = 0;
        self->insert_id = 0;
        Py_SETREF(self->changes, Py_NewRef(empty_tuple));
        self->answered = 0;
    }
    Py_RETURN_NONE;
}

static PyObject *
Responses_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    Responses *self = (Responses *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->held = Py_NewRef(empty_bytes);
        self->changes = Py_NewRef(empty_tuple);
        self->shape = NONE;
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
    {"_phase", T_INT, offsetof(Responses, phase), 0, NULL},
    {"_shape", T_INT, offsetof(Responses, shape), 0, NULL},
    {"_count", T_PYSSIZET, offsetof(Responses, count), 0, NULL},
    {"_skip", T_PYSSIZET, offsetof(Responses, skip), 0, NULL},
    {"_held", T_OBJECT_EX, offsetof(Responses, held), READONLY, NULL},
    {"_fragment", T_BOOL, offsetof(Responses, fragment), 0, NULL},
    {"answered", T_BOOL, offsetof(Responses, answered), 0, NULL},
    {"changes", T_OBJECT_EX, offsetof(Responses, changes), READONLY, NULL},
    {"status", T_UINT, offsetof(Responses, status), 0, NULL},
    {"error", T_UINT, offsetof(Responses, error), 0, NULL},
    {"insert_id", T_ULONGLONG, offsetof(Responses, insert_id), 0, NULL},
    {"number", T_LONGLONG, offsetof(Responses, number), 0, NULL},
    {NULL},
};

static PyObject *
Responses_give_up(Responses *self, PyObject *ignored)
{
    self->phase = IDLE;
    self->skip = 0;
    self->fragment = 0;
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
    PyObject *errors = PyImport_ImportModule("odptwist.errors");
    if (errors == NULL)
        return NULL;
    WireError = PyObject_GetAttrString(errors, "WireError");
    MalformedPacket = PyObject_GetAttrString(errors, "MalformedPacket");
    PacketTooLarge = PyObject_GetAttrString(errors, "PacketTooLarge");
    ResponseOverrun = PyObject_GetAttrString(errors, "ResponseOverrun");
    FileRefused = PyObject_GetAttrString(errors, "FileRefused");
    Py_DECREF(errors);
    empty_bytes = PyBytes_FromStringAndSize("", 0);
    empty_tuple = PyTuple_New(0);
    if (!WireError || !MalformedPacket || !PacketTooLarge || !ResponseOverrun || !FileRefused || !empty_bytes ||
        !empty_tuple)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || PyModule_AddType(made, &ResponsesType) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
