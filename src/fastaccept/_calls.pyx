"""Calls: the queue of other threads and the timers of call_later(). The loop makes the calls; this file only keeps them."""
import collections

from fastaccept._timers cimport timers_cancel, timers_clear, timers_init, timers_next_ms, timers_pop, timers_set


cdef class TimerHandle:
    """What call_later() returns. Threads: the loop's."""

    def cancel(self):
        """Take the call back; nothing happens if it was made already."""
        if self.callback is not None:
            self.calls.forget(self)


cdef class Calls:
    def __cinit__(self):
        self.soon = collections.deque()
        self.later = []
        self.free_numbers = []
        timers_init(&self.timers)

    def __dealloc__(self):
        timers_clear(&self.timers)

    cdef int64_t next_ms(self) noexcept:
        return 0 if self.soon else timers_next_ms(&self.timers)

    cdef TimerHandle add_later(self, int64_t due_ms, object callback, tuple args):
        cdef TimerHandle timer = TimerHandle.__new__(TimerHandle)
        timer.calls, timer.callback, timer.args = self, callback, args
        if self.free_numbers:
            timer.number = self.free_numbers.pop()
        else:
            timer.number = len(self.later)
            self.later.append(None)
        self.later[timer.number] = timer         # released in forget()
        if timers_set(&self.timers, timer.number, due_ms) < 0:
            self.forget(timer)
            raise MemoryError
        return timer

    cdef TimerHandle pop_due(self, int64_t now_ms):
        """The earliest timer that is due, already forgotten but for its callback; None if none is."""
        cdef uint32_t number
        return self.later[number] if timers_pop(&self.timers, now_ms, &number) else None

    cdef int forget(self, TimerHandle timer) except -1:
        timers_cancel(&self.timers, timer.number)
        timer.callback = timer.args = None
        self.later[timer.number] = None
        self.free_numbers.append(timer.number)
        return 0
