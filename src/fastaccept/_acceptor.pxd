"""Acceptor: the listeners of a server, and what each client meets at them.

It holds one admission for each listener (why it is paused) and the limits that they share, turns the reasons into a mode for the
backend (what a client meets), once a turn, and tells the owner. The states and their arrows are those of _admission.pxd.

    reasons         mode
    none            MODE_ACCEPT
    USER            as pause() was told: MODE_REFUSE or MODE_QUEUE
    any other       as when_full says: MODE_QUEUE, MODE_REFUSE, MODE_REJECT; MODE_QUEUE where rejecting itself fails

What the kernel holds is looked at where it can matter: after a turn that accepted somebody, and while it keeps listeners paused
after one that released somebody, and each second. An idle server is not woken for it.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from fastaccept._admission cimport admission_t, limits_t
from fastaccept._backend cimport Backend, accept_mode_t, io_event_t, handle_t
from fastaccept._stats cimport stats_t

cdef enum:
    LISTENERS_MAX = 64
    # Looking costs some microseconds: ten times a second they are nothing.
    MEMORY_LOOK_MS = 100
    # Paused: memory that others give back is seen as late as any other resource (ACCEPT_RETRY_MAX_MS).
    MEMORY_RETRY_MS = 1000

cdef struct listener_t:
    bint is_open
    accept_mode_t mode               # what the backend was last told
    bint reject_failed               # while RESOURCES is set: rejecting failed too, so the clients wait
    admission_t admission

cdef class Acceptor:
    cdef Backend backend
    cdef object owner                # _accept_error, _paused, _resumed and _kernel_memory are called on it
    cdef stats_t *stats
    cdef limits_t limits
    cdef listener_t listeners[LISTENERS_MAX]
    cdef uint32_t n_listeners        # numbers given out so far
    cdef accept_mode_t full_mode     # Server.when_full
    cdef accept_mode_t user_mode     # how the user's pause looks to a client
    cdef int64_t memory_limit        # bytes that the kernel may hold; INT64_MAX = no limit, and nobody looks
    cdef int64_t memory_looked_ms    # the last look
    cdef int64_t memory_due_ms       # the next one, while it keeps listeners paused; else INT64_MAX
    cdef uint64_t memory_accepted    # stats.accepted at the last look

    cdef int64_t open(self, handle_t handle, int backlog, int64_t now_ms) except -1
    cdef void close(self, uint32_t number) noexcept
    cdef int64_t next_ms(self) noexcept                          # the earliest retry or look, INT64_MAX if none
    # events
    cdef void opened(self, uint32_t number, int64_t now_ms) noexcept         # a connection was accepted
    cdef void released(self, int64_t now_ms) noexcept            # one was released
    cdef void limits_changed(self, int64_t now_ms) noexcept
    cdef int set_memory_limit(self, int64_t limit, int64_t now_ms) except -1
    cdef int ended(self, const io_event_t *event, int64_t now_ms) except -1  # IO_ACCEPT_ENDED
    cdef int failed(self, uint32_t number, int error, bint everywhere, int64_t now_ms) except -1
    cdef int retry(self, int64_t now_ms) except -1               # time has passed
    cdef void pause(self, int64_t now_ms) noexcept
    cdef void resume(self, int64_t now_ms) noexcept
    cdef void drain(self, int64_t now_ms) noexcept
    # once a turn
    cdef int settle(self, int64_t now_ms) except -1

    cdef int _look_at_memory(self, int64_t now_ms) except -1
    cdef accept_mode_t _wanted_mode(self, const listener_t *listener) noexcept
    cdef int _apply_mode(self, uint32_t number, int64_t now_ms) except -1
