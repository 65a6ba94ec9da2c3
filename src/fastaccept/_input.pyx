"""Input: receiving, and the `bytes` that on_data gets (see _input.pxd).

A message that is not short is lent to the callback in the `bytes` object that it was received into, which is used again once nobody
else holds it: a malloc and a free for each is 3 % of an echo of 1 KiB. An application that keeps such an object keeps all of its room with
it. So after one was kept, the next NOT_LENT messages are copied, or cut to their length. Then one is lent on trial, and all are again when
it has come back.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, _PyBytes_Resize
from cpython.ref cimport Py_CLEAR, Py_XDECREF
from fastaccept._backend cimport IO_READABLE
from fastaccept._conns cimport conn_is_readable, conn_t
from fastaccept._slots cimport slots_find

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(char *, Py_ssize_t) except NULL

cdef extern from "compat.h":
    bint fa_is_only_reference(PyObject *object, Py_ssize_t ours)
    void fa_bytes_set_length(PyObject *object, Py_ssize_t length)


cdef class Input:
    def __cinit__(self, Connections table not None):
        self.table = table
        self.held = {}
        for i in range(AHEAD_EVENTS + 1):
            self.places[i].room = FIRST_BYTES

    def __dealloc__(self):
        for i in range(AHEAD_EVENTS + 1):
            Py_XDECREF(self.places[i].buffer)

    cdef int receive_ahead(self, const io_event_t *events, int n) except -1:
        """Receive for the first of these events that tell of input. Returns how many of them were looked at, 1 or more."""
        # Several long objects that are made anew and live at once have glibc give memory back and take it again in each turn.
        cdef size_t enough = AHEAD_BYTES if self.lends_all else COPIED_BYTES
        cdef received_t *received
        cdef conn_t *conn
        cdef int i
        if self.on_trial != NULL:
            self._make_ready(self.on_trial)
        n = min(n, <int>AHEAD_EVENTS)
        self.first = self.last = 0
        self.n_bytes = 0
        for i in range(n):           # before the first recv(): when there is no memory, nothing is lost
            self._make_ready(&self.places[i])
        for i in range(n):
            if events[i].kind != IO_READABLE:
                continue
            conn = <conn_t *>slots_find(&self.table.slots, events[i].token)
            if conn == NULL or not conn_is_readable(conn):
                continue
            received = &self.places[self.last]
            self.last += 1
            self._receive(received, events[i].token)
            if self.n_bytes >= enough:
                return i + 1
        return n

    cdef void _receive(self, received_t *received, uint64_t token) noexcept:
        received.token = token
        received.n = self.table.backend.recv(token, PyBytes_AS_STRING(<object>received.buffer), received.room)
        if received.n > 0:
            self.n_bytes += received.n

    cdef received_t *take(self, uint64_t token) noexcept:
        """What was received ahead for a connection, once; NULL: nothing was. Those before it are no longer asked for."""
        cdef int i
        for i in range(self.first, self.last):
            if self.places[i].token == token:
                self.first = i + 1
                return &self.places[i]
        return NULL

    cdef received_t *receive(self, uint64_t token) except NULL:
        """One recv() now."""
        cdef received_t *received = &self.places[AHEAD_EVENTS]
        self._make_ready(received)
        self._receive(received, token)
        return received

    cdef int hold(self, uint64_t token, received_t *received) except -1:
        cdef bytes data = self.data_of(received)
        self.held[token] = data
        self.held_bytes += len(data)
        return 0

    cdef bytes give_held(self, uint64_t token):
        """What was held for a connection, to be given or dropped."""
        cdef bytes data = self.held.pop(token)
        self.held_bytes -= len(data)
        return data

    cdef int _make_ready(self, received_t *received) except -1:
        """See to a buffer that nobody else holds, and that was not too small for what came last."""
        if received.buffer != NULL and not fa_is_only_reference(received.buffer, 1):
            Py_CLEAR(received.buffer)
            self.lends_all = False
            self.on_trial = NULL
            self.not_lent = NOT_LENT
        elif received == self.on_trial:
            self.lends_all = True
            self.on_trial = NULL
        if received.n == received.room and received.room < READ_BYTES:
            received.room = READ_BYTES
            Py_CLEAR(received.buffer)
        if received.buffer == NULL:
            received.buffer = new_bytes(NULL, received.room)
        return 0

    cdef bint _may_lend(self, received_t *received) noexcept:
        if self.lends_all:
            return True
        if self.not_lent > 0:
            self.not_lent -= 1
            return False
        if self.on_trial != NULL:
            return False
        self.on_trial = received
        return True

    cdef bytes data_of(self, received_t *received):
        """What on_data gets."""
        cdef PyObject *cut = received.buffer
        cdef bytes data
        if received.n > SHORT_BYTES and self._may_lend(received):
            fa_bytes_set_length(received.buffer, received.n)
            return <bytes>received.buffer
        if received.n <= COPIED_BYTES:
            return PyBytes_FromStringAndSize(PyBytes_AS_STRING(<object>received.buffer), received.n)
        received.buffer = NULL
        fa_bytes_set_length(cut, received.room)  # its length is that of the message before
        _PyBytes_Resize(&cut, received.n)
        data = <bytes>cut
        Py_XDECREF(cut)
        return data
