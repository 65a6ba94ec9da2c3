"""Timers: the heap (see _timers.pxd), and a view of it for tests."""
from libc.errno cimport ENOMEM
from libc.stdlib cimport free, realloc
from libc.string cimport memset


cdef void timers_init(timers_t *timers) noexcept nogil:
    memset(timers, 0, sizeof(timers_t))


cdef inline void _place(timers_t *timers, uint32_t at, timer_entry_t entry) noexcept nogil:
    timers.heap[at] = entry
    timers.position[entry.number] = at


cdef void _sift_up(timers_t *timers, uint32_t at, timer_entry_t entry) noexcept nogil:
    cdef uint32_t parent
    while at > 0:
        parent = (at - 1) // 2
        if timers.heap[parent].due_ms <= entry.due_ms:
            break
        _place(timers, at, timers.heap[parent])
        at = parent
    _place(timers, at, entry)


cdef void _sift_down(timers_t *timers, uint32_t at, timer_entry_t entry) noexcept nogil:
    cdef uint32_t child
    while True:
        child = 2 * at + 1
        if child >= timers.size:
            break
        if child + 1 < timers.size and timers.heap[child + 1].due_ms < timers.heap[child].due_ms:
            child += 1
        if entry.due_ms <= timers.heap[child].due_ms:
            break
        _place(timers, at, timers.heap[child])
        at = child
    _place(timers, at, entry)


cdef void _move(timers_t *timers, uint32_t at, timer_entry_t entry) noexcept nogil:
    """Put an entry where heap[at] is free to be overwritten."""
    if at > 0 and timers.heap[(at - 1) // 2].due_ms > entry.due_ms:
        _sift_up(timers, at, entry)
    else:
        _sift_down(timers, at, entry)


cdef int _grow_positions(timers_t *timers, uint32_t number) noexcept nogil:
    cdef uint32_t wanted = max(64, max(number + 1, 2 * timers.n_positions))
    cdef uint32_t i
    cdef void *grown = realloc(timers.position, wanted * sizeof(uint32_t))
    if grown == NULL:
        return -ENOMEM
    timers.position = <uint32_t *>grown
    for i in range(timers.n_positions, wanted):
        timers.position[i] = TIMER_UNSET
    timers.n_positions = wanted
    return 0


cdef int _grow_heap(timers_t *timers) noexcept nogil:
    cdef uint32_t wanted = max(64, 2 * timers.capacity)
    cdef void *grown = realloc(timers.heap, wanted * sizeof(timer_entry_t))
    if grown == NULL:
        return -ENOMEM
    timers.heap = <timer_entry_t *>grown
    timers.capacity = wanted
    return 0


cdef int timers_set(timers_t *timers, uint32_t number, int64_t due_ms) noexcept nogil:
    cdef timer_entry_t entry
    if number >= timers.n_positions and _grow_positions(timers, number) < 0:
        return -ENOMEM
    entry.due_ms = due_ms
    entry.number = number
    if timers.position[number] != TIMER_UNSET:
        _move(timers, timers.position[number], entry)
        return 0
    if timers.size == timers.capacity and _grow_heap(timers) < 0:
        return -ENOMEM
    timers.size += 1
    _sift_up(timers, timers.size - 1, entry)
    return 0


cdef void timers_cancel(timers_t *timers, uint32_t number) noexcept nogil:
    cdef uint32_t at
    if number >= timers.n_positions or timers.position[number] == TIMER_UNSET:
        return
    at = timers.position[number]
    timers.position[number] = TIMER_UNSET
    timers.size -= 1
    if at != timers.size:
        _move(timers, at, timers.heap[timers.size])


cdef bint timers_pop(timers_t *timers, int64_t now_ms, uint32_t *number) noexcept nogil:
    if timers.size == 0 or timers.heap[0].due_ms > now_ms:
        return False
    number[0] = timers.heap[0].number
    timers_cancel(timers, number[0])
    return True


cdef void timers_clear(timers_t *timers) noexcept nogil:
    free(timers.heap)
    free(timers.position)
    timers_init(timers)


cdef class Timers:
    """A view of timers_t for tests. Threads: one at a time."""
    cdef timers_t timers

    def __cinit__(self):
        timers_init(&self.timers)

    def __dealloc__(self):
        timers_clear(&self.timers)

    def set(self, uint32_t number, int64_t due_ms):
        """Give a number its one deadline; raises MemoryError."""
        if timers_set(&self.timers, number, due_ms) < 0:
            raise MemoryError

    def cancel(self, uint32_t number):
        """Take a number's deadline away, if it has one."""
        timers_cancel(&self.timers, number)

    def pop(self, int64_t now_ms):
        """Return the earliest number that is due, or None."""
        cdef uint32_t number
        return number if timers_pop(&self.timers, now_ms, &number) else None

    def next_ms(self):
        """Return the earliest deadline, or None."""
        return timers_next_ms(&self.timers) if self.timers.size else None

    def __len__(self):
        return self.timers.size
