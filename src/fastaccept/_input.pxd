"""Input: what connections have received and the application has not got yet.

A batch is taken a few connections at a time: one recv() for each, then their callbacks, then their answers. Made one after the other,
the calls of a kind find the kernel's code in the processor's cache, where the interpreter has been in between when they take turns.
So a callback may close or pause a connection whose input is here already: what was received is then dropped, or held.
"""
cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from fastaccept._backend cimport io_event_t
from fastaccept._conns cimport Connections

cdef enum:
    FIRST_BYTES = 4096               # what a buffer has room for, until it was full once
    READ_BYTES = 69632               # afterwards, so the most that one callback gets: 64 KiB with a header leave room
    AHEAD_EVENTS = 8                 # received for so many, before the first one's callback
    AHEAD_BYTES = 24576              # or so much: a long message leaves while the first-level cache holds it
    SHORT_BYTES = 479                # with its header a `bytes` of so much comes from the interpreter's own allocator, which is quick
    COPIED_BYTES = 4096              # to copy so much is cheaper than to cut a buffer
    NOT_LENT = 1000                  # messages that are not lent to the application, after it has kept one

cdef struct received_t:
    uint64_t token
    int64_t n                        # what recv() returned
    PyObject *buffer                 # `bytes` with that room, ours alone while it is not lent to a callback; NULL: none yet
    int64_t room                     # FIRST_BYTES or READ_BYTES


@cython.final
cdef class Input:
    cdef Connections table
    cdef received_t places[AHEAD_EVENTS + 1]     # the last is for what is received at its turn
    cdef int first, last             # places received ahead and not taken yet
    cdef size_t n_bytes              # received ahead, in all
    cdef bint lends_all              # every message is lent: those before were given back, as far as we have seen
    cdef int not_lent                # otherwise: messages left until one is lent on trial
    cdef received_t *on_trial        # that one's place, until it was looked at; NULL: there is none
    cdef dict held                   # by token: what a connection got that another one's callback had paused meanwhile; b"" = the end
    cdef size_t held_bytes

    cdef int receive_ahead(self, const io_event_t *events, int n) except -1
    cdef received_t *take(self, uint64_t token) noexcept
    cdef received_t *receive(self, uint64_t token) except NULL
    cdef bytes data_of(self, received_t *received)
    cdef int hold(self, uint64_t token, received_t *received) except -1
    cdef bytes give_held(self, uint64_t token)
    cdef bint _may_lend(self, received_t *received) noexcept
    cdef int _make_ready(self, received_t *received) except -1
    cdef void _receive(self, received_t *received, uint64_t token) noexcept
