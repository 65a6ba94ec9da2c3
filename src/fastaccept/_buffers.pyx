"""Buffers: the write queue (see _buffers.pxd), and a view of it for tests."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove


cdef outq_t *outq_open(outq_pool_t *pool) noexcept:
    cdef outq_t *queue = pool.first
    if queue != NULL:
        pool.first = queue.next_free
        pool.size -= 1
    else:
        queue = <outq_t *>malloc(sizeof(outq_t))
        if queue == NULL:
            return NULL
    queue.items = queue.inline_items
    queue.capacity = OUTQ_INLINE
    queue.head = queue.tail = 0
    queue.head_sent = queue.bytes = 0
    queue.next_free = NULL
    pool.in_use += 1
    return queue


cdef int _make_room(outq_t *queue) except -1:
    """Room for one more item: by closing the gap in front where that is large, else by growing."""
    cdef uint32_t count = queue.tail - queue.head
    cdef PyObject **grown
    if queue.head >= queue.capacity // 2:
        memmove(queue.items, queue.items + queue.head, count * sizeof(PyObject *))
        queue.head = 0
        queue.tail = count
        return 0
    if queue.items == queue.inline_items:
        grown = <PyObject **>malloc(2 * queue.capacity * sizeof(PyObject *))
        if grown != NULL:
            memcpy(grown, queue.items, queue.tail * sizeof(PyObject *))
    else:
        grown = <PyObject **>realloc(queue.items, 2 * queue.capacity * sizeof(PyObject *))
    if grown == NULL:
        raise MemoryError
    queue.items = grown
    queue.capacity *= 2
    return 0


cdef int outq_append(outq_t *queue, bytes item) except -1:
    if PyBytes_GET_SIZE(item) == 0:
        return 0
    if queue.tail == queue.capacity:
        _make_room(queue)
    Py_INCREF(item)                  # released in outq_consume or outq_drop
    queue.items[queue.tail] = <PyObject *>item
    queue.tail += 1
    queue.bytes += PyBytes_GET_SIZE(item)
    return 0


cdef int outq_slices(const outq_t *queue, io_slice_t *slices, int capacity, size_t *length) noexcept:
    cdef uint32_t i
    cdef int n = 0
    length[0] = 0
    for i in range(queue.head, queue.tail):
        if n == capacity:
            break
        slices[n].base = PyBytes_AS_STRING(<object>queue.items[i])
        slices[n].length = PyBytes_GET_SIZE(<object>queue.items[i])
        length[0] += slices[n].length
        n += 1
    if n:
        slices[0].base += queue.head_sent
        slices[0].length -= queue.head_sent
        length[0] -= queue.head_sent
    return n


cdef void outq_consume(outq_t *queue, size_t n) noexcept:
    cdef size_t left
    queue.bytes -= n
    while queue.head < queue.tail:
        left = PyBytes_GET_SIZE(<object>queue.items[queue.head]) - queue.head_sent
        if n < left:
            queue.head_sent += n
            return
        n -= left
        queue.head_sent = 0
        Py_XDECREF(queue.items[queue.head])
        queue.head += 1
    queue.head = queue.tail = 0


cdef void outq_drop(outq_pool_t *pool, outq_t *queue) noexcept:
    cdef uint32_t i
    for i in range(queue.head, queue.tail):
        Py_XDECREF(queue.items[i])
    if queue.items != queue.inline_items:
        free(queue.items)
    pool.in_use -= 1
    if pool.size == OUTQ_POOL_MAX:
        free(queue)
        return
    queue.next_free = pool.first
    pool.first = queue
    pool.size += 1


cdef void outq_pool_clear(outq_pool_t *pool) noexcept:
    cdef outq_t *queue
    while pool.first != NULL:
        queue = pool.first
        pool.first = queue.next_free
        free(queue)
    pool.size = 0


cdef class OutQueue:
    """A view of outq_t for tests. Threads: one at a time."""
    cdef outq_pool_t pool
    cdef outq_t *queue

    def __cinit__(self):
        self.queue = outq_open(&self.pool)
        if self.queue == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.queue != NULL:
            outq_drop(&self.pool, self.queue)
        outq_pool_clear(&self.pool)

    def append(self, bytes item not None):
        """Queue an item."""
        outq_append(self.queue, item)

    def slices(self, int capacity=SLICES_MAX):
        """Return what would be offered to the system, as a list of bytes."""
        cdef io_slice_t slices[SLICES_MAX]
        cdef size_t length
        cdef int n = outq_slices(self.queue, slices, min(capacity, <int>SLICES_MAX), &length)
        assert length == sum([slices[i].length for i in range(n)])
        return [slices[i].base[:slices[i].length] for i in range(n)]

    def consume(self, size_t n):
        """The system took the first n bytes."""
        if n > self.queue.bytes:
            raise ValueError(f"n is {n}; only {self.queue.bytes} bytes wait")
        outq_consume(self.queue, n)

    def __len__(self):
        return self.queue.bytes
