"""Buffers: what an application wrote and the system has not taken yet.

An outq_t exists only while something waits: an idle connection owns none. It holds references to exact `bytes` objects,
never copies of them; anything else that write() is given was copied into `bytes` before it came here, because its owner
may change it. References are given back in outq_consume() and outq_drop(), under the GIL; slices stay valid until
then, so that a completion port may read from them while a send is under way.
"""
from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t

cdef enum:
    OUTQ_INLINE = 6                  # items that need no second allocation: header, body and a few more
    OUTQ_POOL_MAX = 256              # empty queues kept for reuse, by a server
    SLICES_MAX = 64                  # slices offered to the system at once

cdef struct io_slice_t:              # laid out as Linux's struct iovec; Windows' WSABUF is made from it
    char *base
    size_t length

cdef struct outq_t:
    PyObject **items                 # inline_items, or an allocation
    uint32_t head                    # first item that is not sent whole
    uint32_t tail                    # one past the last item
    uint32_t capacity                # of items
    size_t head_sent                 # bytes of items[head] that are sent
    size_t bytes                     # bytes waiting
    outq_t *next_free                # while in the pool
    PyObject *inline_items[OUTQ_INLINE]

cdef struct outq_pool_t:
    outq_t *first
    uint32_t size                    # queues in the pool
    uint32_t in_use                  # queues handed out

cdef outq_t *outq_open(outq_pool_t *pool) noexcept                        # NULL: out of memory
cdef int outq_append(outq_t *queue, bytes item) except -1     # takes a reference, but not to b""; raises MemoryError
cdef int outq_slices(const outq_t *queue, io_slice_t *slices, int capacity, size_t *length) noexcept     # how many; how long in all
cdef void outq_consume(outq_t *queue, size_t n) noexcept                  # the first n bytes are sent
cdef void outq_drop(outq_pool_t *pool, outq_t *queue) noexcept            # gives back what it holds, and itself
cdef void outq_pool_clear(outq_pool_t *pool) noexcept
