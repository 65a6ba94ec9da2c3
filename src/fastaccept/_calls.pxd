"""Calls: what the application asks the loop to call, from another thread or later."""
from libc.stdint cimport int64_t, uint32_t
from fastaccept._timers cimport timers_t

cdef class Calls:
    cdef object soon                 # deque of (callback, args); appended to by any thread
    cdef timers_t timers             # by number
    cdef list later                  # by number: the TimerHandle, or None
    cdef list free_numbers

    cdef int64_t next_ms(self) noexcept          # the earliest deadline, INT64_MAX if none; 0 when a call is due at once
    cdef TimerHandle add_later(self, int64_t due_ms, object callback, tuple args)
    cdef TimerHandle pop_due(self, int64_t now_ms)
    cdef int forget(self, TimerHandle timer) except -1

cdef class TimerHandle:
    cdef Calls calls
    cdef object callback             # None once called or cancelled
    cdef tuple args
    cdef uint32_t number
