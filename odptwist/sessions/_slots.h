/* Slots of Python objects, read and set where they are, at offsets that are found once. */
#ifndef ODPTWIST_SLOTS_H
#define ODPTWIST_SLOTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define MOST_CONDITIONS 16

/* What an event has come to. */
enum { BROKEN = -1, IN_C = 0, IN_PYTHON = 1 };

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

/* Return whether a slot holds None, or an object of the class that is known. */
static inline int
is_known_or_none(PyObject *object, Py_ssize_t offset, PyTypeObject *class)
{
    return slot(object, offset) == Py_None || known_at(object, offset, class) != NULL;
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

#endif
