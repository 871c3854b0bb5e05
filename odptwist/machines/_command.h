/* The client's side of odptwist/machines/exchange.py for the case that counts: a whole command that needs no look.
 *
 * The same rules as `Tracker.client`, `_is_plain` and `_PLAIN_TEXTS`; tests/sessions/test_relaying.py holds them
 * against each other.
 */
#ifndef ODPTWIST_COMMAND_H
#define ODPTWIST_COMMAND_H

#define _GNU_SOURCE 1 /* memmem */
#include "_response.h"
#include <string.h>

enum {
    COM_QUERY = 0x03,
    COM_STATISTICS = 0x09,
    COM_PING = 0x0E,
    COM_STMT_EXECUTE = 0x17,
    COM_STMT_RESET = 0x1A,
    COM_STMT_FETCH = 0x1C
};

/* A packet's header and the command byte: the text begins behind them. */
#define TEXT 5
/* `proxysession` is looked for in so many bytes of the packet (`_MARK_LIMIT`). */
#define MARK_LIMIT (8 * 1024)

/* More beginnings than `plain_prefixes` ever returns: three ways to write each of eight words. */
#define MOST_BEGINNINGS 64

/* What `plain_prefixes` has returned, in a form that is quicker to look through than a set of bytes. */
typedef struct {
    PyObject *set; /* which one it was; NULL for none */
    unsigned int beginnings[MOST_BEGINNINGS];
    int count;
} Plain;

static unsigned int
three_bytes(const unsigned char *at)
{
    return at[0] | (unsigned int)at[1] << 8 | (unsigned int)at[2] << 16;
}

/* Read a set of beginnings, unless it is the one that was read before. What has not three bytes is never found. */
static int
read_plain(Plain *plain, PyObject *set)
{
    if (plain->set == set && set != NULL)
        return 0;
    if (set == NULL || !PyFrozenSet_Check(set)) {
        PyErr_SetString(PyExc_TypeError, "beginnings of plain texts are a frozen set");
        return FAILED;
    }
    PyObject *each, *all = PyObject_GetIter(set);
    if (all == NULL)
        return FAILED;
    Py_CLEAR(plain->set);
    plain->count = 0;
    while ((each = PyIter_Next(all)) != NULL) {
        if (PyBytes_Check(each) && PyBytes_GET_SIZE(each) == 3 && plain->count < MOST_BEGINNINGS)
            plain->beginnings[plain->count++] = three_bytes((const unsigned char *)PyBytes_AS_STRING(each));
        Py_DECREF(each);
    }
    Py_DECREF(all);
    if (PyErr_Occurred())
        return FAILED;
    plain->set = Py_NewRef(set);
    return 0;
}

static int
begins_plain(const Plain *plain, const unsigned char *text, Py_ssize_t size)
{
    if (size < 3)
        return 0;
    unsigned int beginning = three_bytes(text);
    for (int i = 0; i < plain->count; i++)
        if (plain->beginnings[i] == beginning)
            return 1;
    return 0;
}

/* Whether a byte is the capital of a small letter. */
static int
is_capital(unsigned char byte, char letter)
{
    return byte >= 'A' && byte <= 'Z' && byte + 0x20 == letter;
}

/* Whether a word (in small letters) is in a text, whatever the case of its letters there. */
static int
has_word(const unsigned char *text, Py_ssize_t size, const char *word)
{
    Py_ssize_t length = (Py_ssize_t)strlen(word);
    for (Py_ssize_t at = 0; at + length <= size; at++) {
        Py_ssize_t i = 0;
        while (i < length && (text[at + i] == (unsigned char)word[i] || is_capital(text[at + i], word[i])))
            i++;
        if (i == length)
            return 1;
    }
    return 0;
}

static int
has_byte(const unsigned char *text, Py_ssize_t size, int byte)
{
    return memchr(text, byte, (size_t)size) != NULL;
}

/* Whether a text that begins like a plain statement also goes on like one: `_is_plain`. */
static int
goes_on_plain(const unsigned char *packet, Py_ssize_t size)
{
    const unsigned char *text = packet + TEXT;
    Py_ssize_t length = size - TEXT;
    if (has_byte(text, length, '@') || has_byte(text, length, ';'))
        return 0;
    if (has_byte(text, length, '/') && memmem(text, (size_t)length, "/*", 2) != NULL)
        return 0;
    Py_ssize_t searched = size < MARK_LIMIT ? size : MARK_LIMIT;
    if (has_byte(packet, size, '(')) {
        static const char *const words[] = {"_lock", "last_insert_id", "connection_id", "proxy_version"};
        for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
            if (has_word(packet, size, words[i]))
                return 0;
    } else if (!has_byte(packet, size, 'x') && !has_byte(packet, size, 'X')) {
        return 1;
    }
    return !has_word(packet, searched, "proxysession");
}

/* Whether a text is one of `_PLAIN_TEXTS`: in small letters throughout, or in capitals. */
static int
is_plain_text(const unsigned char *text, Py_ssize_t size)
{
    static const char *const texts[] = {"begin",    "BEGIN",    "commit",            "COMMIT",
                                        "rollback", "ROLLBACK", "start transaction", "START TRANSACTION"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        if ((size_t)size == strlen(texts[i]) && memcmp(text, texts[i], (size_t)size) == 0)
            return 1;
    return 0;
}

/* Whether a whole command names a prepared statement. */
static int
is_about_statement(const unsigned char *packet)
{
    return packet[4] == COM_STMT_EXECUTE || packet[4] == COM_STMT_FETCH || packet[4] == COM_STMT_RESET;
}

/* Return the shape of the response if a chunk is one whole command that needs no look, else 0. */
static int
plain_shape(const unsigned char *chunk, Py_ssize_t size, const Plain *plain)
{
    if (size < TEXT || size - 4 >= MAX_PAYLOAD)
        return 0;
    Py_ssize_t head = chunk[0] | (Py_ssize_t)chunk[1] << 8 | (Py_ssize_t)chunk[2] << 16 | (Py_ssize_t)chunk[3] << 24;
    if (head != size - 4)
        return 0; /* cut, followed by more, or with another sequence number than 0 */
    switch (chunk[4]) {
    case COM_QUERY:
        if (begins_plain(plain, chunk + TEXT, size - TEXT) && goes_on_plain(chunk, size))
            return RESULT;
        return is_plain_text(chunk + TEXT, size - TEXT) ? RESULT : 0;
    case COM_PING:
    case COM_STMT_RESET:
        return SIMPLE;
    case COM_STATISTICS:
        return STRING;
    case COM_STMT_EXECUTE:
        return RESULT;
    case COM_STMT_FETCH:
        return FETCH;
    default:
        return 0;
    }
}

#endif
