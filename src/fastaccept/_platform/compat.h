/* What differs between CPython versions and builds. */
#ifndef FASTACCEPT_COMPAT_H
#define FASTACCEPT_COMPAT_H

#include <Python.h>

/* True when nobody but us holds the object: `ours` is the number of references that we hold ourselves.
   Without the GIL a count read by us may already be larger than what is read, never smaller, for objects that no other
   thread can reach; an object that escaped to another thread was counted when it escaped. */
static inline int fa_is_only_reference(PyObject *object, Py_ssize_t ours)
{
    return Py_REFCNT(object) == ours;
}

#endif
