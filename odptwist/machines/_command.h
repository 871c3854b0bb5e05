/* The client's side of odptwist/machines/exchange.py for the case that counts: a whole command that needs no look.
 *
 * The same rules as `Tracker.client`, `_is_plain` and `_PLAIN_TEXTS`; tests/sessions/test_relaying.py holds them
 * against each other.
 */
#ifndef ODPTWIST_COMMAND_H
#define ODPTWIST_COMMAND_H

#define _GNU_SOURCE 1 /* memmem */
#include "_response.h"
#include <ctype.h>
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

/* Whether a word (in small letters) is in a text, whatever the case of its letters there. */
static int
has_word(const unsigned char *text, Py_ssize_t size, const char *word)
{
    Py_ssize_t length = (Py_ssize_t)strlen(word);
    for (Py_ssize_t at = 0; at + length <= size; at++) {
        Py_ssize_t i = 0;
        while (i < length && tolower(text[at + i]) == word[i])
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
    if (has_byte(text, length, '@') || has_byte(text, length, ';') || memmem(text, (size_t)length, "/*", 2) != NULL)
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

/* Return the shape of the response if a chunk is one whole command that needs no look; else 0, or FAILED.
 *
 * `plain` are the beginnings of texts, from `plain_prefixes`.
 */
static int
plain_shape(const unsigned char *chunk, Py_ssize_t size, PyObject *plain)
{
    if (size < TEXT || size - 4 >= MAX_PAYLOAD)
        return 0;
    Py_ssize_t head = chunk[0] | (Py_ssize_t)chunk[1] << 8 | (Py_ssize_t)chunk[2] << 16 | (Py_ssize_t)chunk[3] << 24;
    if (head != size - 4)
        return 0; /* cut, followed by more, or with another sequence number than 0 */
    switch (chunk[4]) {
    case COM_QUERY: {
        Py_ssize_t length = size - TEXT;
        PyObject *beginning = PyBytes_FromStringAndSize((const char *)chunk + TEXT, length < 3 ? length : 3);
        if (beginning == NULL)
            return FAILED;
        int known = PySet_Contains(plain, beginning);
        Py_DECREF(beginning);
        if (known < 0)
            return FAILED;
        return (known && goes_on_plain(chunk, size)) || is_plain_text(chunk + TEXT, length) ? RESULT : 0;
    }
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
