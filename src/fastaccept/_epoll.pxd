"""EpollBackend: the seam over epoll(7). See _epoll.pyx."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from fastaccept._backend cimport io_event_t
from fastaccept._epoll_accept cimport EpollListeners
from fastaccept._platform.linux cimport epoll_event

cdef enum:
    EPOLL_BATCH = 256                # kernel events taken by one epoll_wait

cdef struct epoll_slot_t:
    int fd                           # -1 = none
    uint32_t generation              # of the token that it belongs to
    uint32_t next_closed             # link of the list of slots whose IO_CLOSED is due
    uint8_t wanted                   # epoll events that the loop wants to hear of
    uint8_t watched                  # epoll events that the kernel was asked for; made equal to wanted when one comes unwanted
    uint8_t is_watched               # it is in the epoll set
    uint8_t is_connecting
    uint8_t is_dry                   # nothing was left by the last recv(), and nothing has come since
    uint8_t stops_short              # a recv() that gives less than was asked for may leave something all the same
    uint8_t has_error                # EPOLLERR came with the input; the end of the input does not tell of it


@cython.final
cdef class EpollBackend(EpollListeners):
    cdef int wakeup_fd
    cdef epoll_slot_t *slots         # by index of the token; the kernel holds no pointer into it, so it may move
    cdef uint32_t n_slots
    cdef uint32_t n_used             # slots whose IO_CLOSED has not been reported yet
    cdef uint32_t first_closed       # head of the list of slots whose IO_CLOSED is due; SLOT_NONE = empty

    cdef void _free_slots(self) noexcept nogil
    cdef epoll_slot_t *_slot_of(self, uint64_t token) noexcept nogil
    cdef epoll_slot_t *_slot_open(self, uint64_t token) noexcept nogil
    cdef int _watch(self, epoll_slot_t *slot, uint32_t index) noexcept nogil
    cdef int _emit_closed(self, io_event_t *events, int capacity) noexcept nogil
    cdef int _emit_ready(self, io_event_t *events, int capacity, const epoll_event *ready) noexcept nogil
    cdef int _emit_socket(self, io_event_t *events, uint64_t token, uint32_t happened) noexcept nogil
