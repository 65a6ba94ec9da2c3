"""Timers: a heap of deadlines, addressed by number. PURE: no clock, no callbacks, no Python objects.

    timers_set     a number has at most one deadline; setting it again moves it
    timers_cancel  a number without a deadline is no error
    timers_pop     the earliest number that is due, in order of deadlines; the caller acts on it

A binary heap and not a wheel: most deadlines of a server are `now + one of three constants`, so they come in
nearly sorted and a new one is put in place with one comparison.
"""
from libc.stdint cimport INT64_MAX, int64_t, uint32_t

cdef enum:
    TIMER_UNSET = 0xFFFFFFFF

cdef struct timer_entry_t:
    int64_t due_ms
    uint32_t number

cdef struct timers_t:
    timer_entry_t *heap              # heap[0] is the earliest
    uint32_t size
    uint32_t capacity
    uint32_t *position               # number -> index into heap; TIMER_UNSET = has no deadline
    uint32_t n_positions

cdef void timers_init(timers_t *timers) noexcept nogil
cdef int timers_set(timers_t *timers, uint32_t number, int64_t due_ms) noexcept nogil   # 0, or -ENOMEM and unchanged
cdef void timers_cancel(timers_t *timers, uint32_t number) noexcept nogil
cdef bint timers_pop(timers_t *timers, int64_t now_ms, uint32_t *number) noexcept nogil # False: none is due
cdef void timers_clear(timers_t *timers) noexcept nogil                                 # gives all memory back

cdef inline int64_t timers_next_ms(const timers_t *timers) noexcept nogil:
    """The earliest deadline, INT64_MAX if there is none."""
    return timers.heap[0].due_ms if timers.size else INT64_MAX

cdef inline int64_t timers_due_ms(const timers_t *timers, uint32_t number) noexcept nogil:
    """The deadline of a number, INT64_MAX if it has none."""
    if number >= timers.n_positions or timers.position[number] == TIMER_UNSET:
        return INT64_MAX
    return timers.heap[timers.position[number]].due_ms

cdef inline size_t timers_bytes(const timers_t *timers) noexcept nogil:
    return timers.capacity * sizeof(timer_entry_t) + timers.n_positions * sizeof(uint32_t)
