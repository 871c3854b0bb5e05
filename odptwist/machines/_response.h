/* The response machine of odptwist/machines/response.py once more, in C: same states, same attributes, same errors.
 *
 * That module explains what happens here, and tests/machines/test_response.py holds the two against each other. Nothing
 * of the reader's data is kept but cut packets, and no pointer into it outlives a call. The machine stands in a header
 * because two modules are made of it: `_response`, its Python type, and `odptwist.sessions._hub`, which follows
 * responses without a call from Python.
 */
#ifndef ODPTWIST_RESPONSE_H
#define ODPTWIST_RESPONSE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

enum { IDLE, OURS, INFILE, HEADER, ASKED, COLUMNS, COLUMNS_EOF, ROWS, PASS, LAST, FURTHER };
enum { UNKNOWN, NONE, SIMPLE, RESULT, PREPARE, DEFINITIONS, STRING, FETCH, LOGIN, ENDLESS };

#define MAX_PAYLOAD 0xFFFFFF
#define TERMINAL_LIMIT (1024 * 1024)
#define MORE_RESULTS 0x0008
#define CURSOR_EXISTS 0x0040
#define STATE_CHANGED 0x4000

/* Where a response stands: plain numbers, so that a step can be taken back. */
typedef struct {
    int phase;
    int shape;
    Py_ssize_t count;
    Py_ssize_t skip;
    unsigned int status;
    unsigned int error;
    unsigned long long insert_id;
    long long number;
    long long oks;
    long long result_sets;
    char fragment;
    char answered;
} Standing;

typedef struct {
    PyObject_HEAD
    Standing now;
    PyObject *held;
    PyObject *changes;
    char deprecate_eof;
    char local_files;
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
    self->now.status = u16(packet + 3);
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
    self->now.status = u16(packet + at);
    if (insert_id)
        self->now.insert_id = insert_id;
    if (self->now.status & STATE_CHANGED) {
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
        self->now.error = u16(packet + 1);
        return IDLE;
    }
    if (phase == ROWS) {
        if ((self->deprecate_eof && length > 5 ? read_ok : read_eof)(self, packet, length) < 0)
            return FAILED;
        return self->now.status & MORE_RESULTS && self->now.shape == RESULT ? FURTHER : IDLE;
    }
    if (phase == COLUMNS_EOF) {
        if (first != 0xFE || length > 5)
            return malformed("no EOF packet after column definitions");
        if (read_eof(self, packet, length) < 0)
            return FAILED;
        if (self->now.status & CURSOR_EXISTS)
            return self->now.status & MORE_RESULTS ? FURTHER : IDLE;
        return ROWS;
    }
    switch (self->now.shape) {
    case RESULT:
        if (first == 0x00) {
            if (read_ok(self, packet, length) < 0)
                return FAILED;
            self->now.oks += phase == HEADER;
            return self->now.status & MORE_RESULTS ? FURTHER : IDLE;
        }
        if (first == 0xFB) {
            if (!self->local_files) {
                PyErr_SetString(FileRefused, "it asks for a file of the client's, who has not agreed to send any");
                return FAILED;
            }
            return INFILE;
        }
        if (first < 0xFB)
            self->now.count = first;
        else if (first == 0xFC && length == 3 && u16(packet + 1))
            self->now.count = u16(packet + 1);
        else if (first == 0xFD && length == 4 && (u16(packet + 1) || packet[3]))
            self->now.count = u16(packet + 1) | (Py_ssize_t)packet[3] << 16;
        else
            return malformed("a response that begins like nothing known");
        self->now.result_sets += phase == HEADER;
        return COLUMNS;
    case SIMPLE:
        if (first == 0xFE)
            return read_eof(self, packet, length) < 0 ? FAILED : IDLE;
        if (first != 0x00)
            return malformed("neither OK, ERR nor EOF");
        if (read_ok(self, packet, length) < 0)
            return FAILED;
        self->now.oks++;
        return IDLE;
    case PREPARE: {
        if (first != 0x00 || length < 9)
            return malformed("neither COM_STMT_PREPARE_OK nor ERR");
        Py_ssize_t columns = u16(packet + 5), parameters = u16(packet + 7);
        Py_ssize_t ends = self->deprecate_eof ? 0 : (columns > 0) + (parameters > 0);
        self->now.count = columns + parameters + ends;
        return self->now.count ? PASS : IDLE;
    }
    case LOGIN:
        if (first == 0x00) {
            if (read_ok(self, packet, length) < 0)
                return FAILED;
            self->now.oks++;
            return IDLE;
        }
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
                if (!--self->now.count)
                    phase = self->deprecate_eof ? ROWS : COLUMNS_EOF;
                continue;
            } else if (phase == PASS && first != 0xFF) {
                at += length + 4;
                if (!--self->now.count)
                    phase = at > size ? LAST : IDLE;
                continue;
            }
            cut = left < length + 4;
            if (cut && length > TERMINAL_LIMIT) {
                PyErr_SetString(PacketTooLarge, "a response packet that ends nothing");
                return FAILED;
            }
            if (!cut) {
                if (length == 0 && self->now.shape != STRING)
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
            else if (self->now.shape == STRING)
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

/* Follow a chunk that begins with what was held; return whether the response has ended, or FAILED. */
static int
follow_chunk(Responses *self, const unsigned char *data, Py_ssize_t size)
{
    Py_ssize_t position = self->now.skip;
    if (position > size) {
        self->now.skip = position - size;
        self->now.answered = 1;
        return 0;
    }
    if (self->now.phase == LAST)
        self->now.phase = IDLE;
    char fragment = self->now.fragment;
    int phase = follow(self, data, size, self->now.phase, &fragment, &position);
    if (phase == FAILED)
        return FAILED;
    if (position < size) {
        if (phase != IDLE) {
            PyErr_SetString(WireError, "the server went on before the client's file had come");
            return FAILED;
        }
        self->now.phase = IDLE;
        self->now.fragment = 0;
        self->now.skip = 0;
        PyObject *overrun = PyObject_CallFunction(ResponseOverrun, "n", size - position);
        if (overrun != NULL) {
            PyErr_SetObject(ResponseOverrun, overrun);
            Py_DECREF(overrun);
        }
        return FAILED;
    }
    self->now.phase = phase;
    self->now.fragment = fragment;
    self->now.skip = position - size;
    self->now.answered = 1;
    return phase == IDLE;
}

static void
begin_exchange(Responses *self, int shape)
{
    if (shape == NONE)
        return;
    self->now.shape = shape;
    self->now.phase = shape == FETCH || shape == DEFINITIONS || shape == ENDLESS ? ROWS : HEADER;
    self->now.number++;
    self->now.error = 0;
    self->now.insert_id = 0;
    Py_SETREF(self->changes, Py_NewRef(empty_tuple));
    self->now.answered = 0;
}

/* Load what the machine raises, and what it holds when it holds nothing. Once for each module made of it. */
static int
load_machine(void)
{
    PyObject *errors = PyImport_ImportModule("odptwist.errors");
    if (errors == NULL)
        return FAILED;
    WireError = PyObject_GetAttrString(errors, "WireError");
    MalformedPacket = PyObject_GetAttrString(errors, "MalformedPacket");
    PacketTooLarge = PyObject_GetAttrString(errors, "PacketTooLarge");
    ResponseOverrun = PyObject_GetAttrString(errors, "ResponseOverrun");
    FileRefused = PyObject_GetAttrString(errors, "FileRefused");
    Py_DECREF(errors);
    empty_bytes = PyBytes_FromStringAndSize("", 0);
    empty_tuple = PyTuple_New(0);
    if (!WireError || !MalformedPacket || !PacketTooLarge || !ResponseOverrun || !FileRefused || !empty_bytes)
        return FAILED;
    return empty_tuple ? 0 : FAILED;
}

#endif
