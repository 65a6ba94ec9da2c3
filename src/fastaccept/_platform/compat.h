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

/* Give a bytes object that nobody else holds, and whose memory has room for it, another length. This is what _PyBytes_Resize() does but
   for the realloc(); it has no public name. The hash that was kept belongs to the old content. */
static inline void fa_bytes_set_length(PyObject *object, Py_ssize_t length)
{
    Py_SET_SIZE((PyVarObject *)object, length);
    PyBytes_AS_STRING(object)[length] = 0;
    _Py_COMP_DIAG_PUSH
    _Py_COMP_DIAG_IGNORE_DEPR_DECLS
    ((PyBytesObject *)object)->ob_shash = -1;
    _Py_COMP_DIAG_POP
}

#endif
