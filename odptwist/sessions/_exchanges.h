/* The plain exchange: what it does to both sessions, from a command that was read to the end of its response.
 *
 * Python code can end any session, close any descriptor and give its number to another one. So whatever is used across
 * a call into Python is held by a reference, and no pointer into the table of descriptors is.
 */
#ifndef ODPTWIST_EXCHANGES_H
#define ODPTWIST_EXCHANGES_H

#include "_prepared.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* What one read takes; as BUFFER_SIZE in transport.py. */
#define BUFFER_SIZE (256 * 1024)
#define IN_TRANSACTION 0x0001

static PyObject *name_doRead, *name_dataReceived, *name_write, *name_asked, *name_responded, *name_fileno;
static PyObject *name_inserted, *name_transaction_ended, *name_choose, *name_send_on, *name_ended;

/* -- bytes on their way ------------------------------------------------------------------------------------------ */

static int
lose(Hub *self, PyObject *transport, PyObject *why)
{
    PyObject *answer = PyObject_CallFunctionObjArgs(self->lost, transport, why, Py_True, NULL);
    return done_with(answer) < 0 ? BROKEN : IN_PYTHON;
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
    return done_with(answer) < 0 ? BROKEN : IN_PYTHON;
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
    return done_with(answer) < 0 ? BROKEN : IN_PYTHON;
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
    return size > self->large ? count_in(requests, kinds + self->classes + 1) : 0;
}

/* Remember a command that begins, as Conversation.dataReceived and forward do. */
static int
note_command(Hub *self, PyObject *client, int shape, Py_ssize_t size)
{
    Responses *tracker = tracker_of(self, client);
    const unsigned char *packet = self->buffer;
    Py_ssize_t shown = size - 4 < self->shown ? size - 4 : self->shown;
    if (add_to(client, self->at.client.bytes_in, size) < 0)
        return BROKEN;
    begin_exchange(tracker, shape);
    if (set_slot(client, self->at.client.noted, PyLong_FromLongLong(tracker->now.number)) < 0 ||
        set_slot(client, self->at.client.statement, PyBytes_FromStringAndSize((const char *)packet + 4, shown)) < 0)
        return BROKEN;
    return set_slot(client, self->at.client.since, read_seconds(self));
}

/* -- commands ---------------------------------------------------------------------------------------------------- */

/* Whether a client session's next command may pass to a server session; then `out` is the transport to send by. */
static int
may_ask(Hub *self, PyObject *client, PyObject *server, PyObject **out)
{
    if (!meets(client, &self->asking) || counts_of(self, client) == NULL ||
        !is_known_or_none(client, self->at.client.binary, self->binary_type) ||
        !is_known_or_none(client, self->at.client.choice, self->choice_type) || server == NULL ||
        !Py_IS_TYPE(server, self->server_type) || !meets(server, &self->serving) ||
        slot(server, self->at.server.owner) != client)
        return 0;
    *out = writable(self, server, self->at.server.transport);
    return *out != NULL;
}

/* Send a plain command to the server session that Python chooses, in a cluster of several servers: nearly always it is
 * the one that is bound. */
static int
forward_chosen(Hub *self, PyObject *client, PyObject *server, PyObject *counts, int shape, Py_ssize_t size)
{
    PyObject *command = PyBytes_FromStringAndSize((const char *)self->buffer, size), *out = NULL;
    if (command == NULL || note_command(self, client, shape, size) < 0) {
        Py_XDECREF(command);
        return BROKEN;
    }
    const unsigned char *packet = (const unsigned char *)PyBytes_AS_STRING(command);
    PyObject *chosen = PyObject_CallMethodOneArg(client, name_choose, command);
    int done = chosen == NULL ? BROKEN : IN_PYTHON;
    if (chosen == Py_False) {
        done = add_to(counts, self->at.counts.taken, 1) < 0 ? BROKEN : IN_PYTHON;
    } else if (chosen != NULL && count_command(self, counts, packet, size) < 0) {
        done = BROKEN;
    } else if (chosen != NULL && may_ask(self, client, server, &out)) {
        Py_INCREF(out);
        done = add_to(server, self->at.server.bytes_out, size) < 0 ? BROKEN : transmit(self, out, packet, size);
        Py_DECREF(out);
    } else if (chosen != NULL) {
        done = done_with(PyObject_CallMethodOneArg(client, name_send_on, command)) < 0 ? BROKEN : IN_PYTHON;
    }
    Py_XDECREF(chosen);
    Py_DECREF(command);
    return done;
}

/* Send a plain command on; `known` is what it executes, or NULL. */
static int
forward(Hub *self, PyObject *client, PyObject *server, PyObject *out, PyObject *known, int shape, Py_ssize_t size)
{
    if (begin_prepared(self, client, server, known, self->buffer[4]) < 0 ||
        note_command(self, client, shape, size) < 0 || add_to(server, self->at.server.bytes_out, size) < 0 ||
        count_command(self, counts_of(self, client), self->buffer, size) < 0 ||
        (known != NULL && renumber(self, known, self->buffer) < 0))
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
    if (tracker == NULL || tracker->now.phase != IDLE || !meets((PyObject *)tracker, &self->tracking) ||
        !may_ask(self, client, server, &out))
        return read_in_python(self, descriptor, transport);
    PyObject *why;
    Py_ssize_t size = receive(self, descriptor, &why);
    if (size <= 0)
        return size == 0 ? IN_C : lose(self, transport, why);
    if (read_plain(&self->plain, slot((PyObject *)tracker, self->at.tracker.plain)) == FAILED)
        return BROKEN;
    int shape = plain_shape(self->buffer, size, &self->plain);
    PyObject *binary = slot(client, self->at.client.binary), *known = NULL;
    int choosing = slot(client, self->at.client.choice) != Py_None;
    if (shape != UNKNOWN && !choosing && binary != Py_None && is_about_statement(self->buffer)) {
        known = find_known(self, binary, server, self->buffer, size);
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
    int done;
    if (choosing) {
        PyObject *counts = Py_NewRef(counts_of(self, client));
        done = forward_chosen(self, client, server, counts, shape, size);
        Py_DECREF(counts);
    } else {
        done = forward(self, client, server, out, known, shape, size);
    }
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
           is_known_or_none(client, self->at.client.choice, self->choice_type) &&
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

/* Forget the command that has ended, and let a choice know. */
static int
end_choice(Hub *self, PyObject *client, PyObject *server)
{
    PyObject *choice = slot(client, self->at.client.choice);
    if (set_slot(client, self->at.client.again, Py_NewRef(empty_bytes)) < 0)
        return BROKEN;
    return choice == Py_None ? 0 : done_with(PyObject_CallMethodOneArg(choice, name_ended, server));
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
    if (PyErr_Occurred() || end_choice(self, client, server) < 0 || end_prepared(self, client) < 0 ||
        count_response(self, client, counts) < 0)
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
    return done_with(answer) < 0 ? BROKEN : IN_PYTHON;
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

#endif
