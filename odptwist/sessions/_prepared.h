/* Prepared statements, where a server has to be told nothing but another number: what `BinaryStatements` does then. */
#ifndef ODPTWIST_PREPARED_H
#define ODPTWIST_PREPARED_H

#include "_layout.h"

/* Where the NULLs of a COM_STMT_EXECUTE's parameters begin; a flag and types follow them. */
#define EXECUTE_NULLS (TEXT + 9)

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

/* Begin the exchange of a command; `known` is what it executes, as `find_known` has just found it, or NULL. */
static int
begin_prepared(Hub *self, PyObject *client, PyObject *server, PyObject *known, unsigned char code)
{
    PyObject *binary = slot(client, self->at.client.binary);
    if (binary == Py_None)
        return 0;
    PyObject *statement = known != NULL ? slot(known, self->at.known.statement) : Py_None;
    if (set_slot(binary, self->at.binary.code, PyLong_FromLong(code)) < 0 ||
        set_slot(binary, self->at.binary.statement, Py_NewRef(statement)) < 0 ||
        set_slot(binary, self->at.binary.known, Py_NewRef(known != NULL ? known : Py_None)) < 0 ||
        set_slot(binary, self->at.binary.own, Py_NewRef(Py_None)) < 0 ||
        set_slot(binary, self->at.binary.preparing, Py_NewRef(Py_False)) < 0)
        return BROKEN;
    if (known == NULL)
        return 0;
    /* It is the last one used now: what was used first is closed first. The slots above keep both alive. */
    PyObject *order = slot(slot(server, self->at.server.prepared), self->at.prepared.by_statement);
    return PyDict_DelItem(order, statement) < 0 ? BROKEN : PyDict_SetItem(order, statement, known);
}

/* Give an execute the server's number of its statement. */
static int
renumber(Hub *self, PyObject *known, unsigned char *packet)
{
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
    if (!is_known_or_none(client, self->at.client.binary, self->binary_type))
        return 0;
    PyObject *known = slot(binary, self->at.binary.known);
    if (known == Py_None)
        return 1;
    if (!is_known_or_none(binary, self->at.binary.known, self->known_type) || status & CURSOR_EXISTS)
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

#endif
