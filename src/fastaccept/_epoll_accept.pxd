"""EpollListeners: the listening half of EpollBackend. See _epoll_accept.pyx."""
from libc.stdint cimport int64_t, uint8_t, uint32_t
from fastaccept._backend cimport Backend, accept_class_t, io_event_t
from fastaccept._platform.linux cimport sockaddr, socklen_t

cdef enum:
    EPOLL_LISTENERS_MAX = 64

cdef struct epoll_listener_t:
    int fd                           # -1 = this number is free
    int backlog
    uint8_t mode                     # accept_mode_t
    uint8_t is_armed                 # it is in the epoll set
    uint8_t is_unix                  # can't refuse and come back (see _refuse)
    uint8_t reuses_address           # SO_REUSEADDR was on when we got it
    uint8_t met_ceiling              # an accept took the last descriptor that the reserve leaves us
    uint32_t skipped                 # clients lost in a row (ACCEPT_RETRY)
    uint32_t seen_at_wait            # n_waits when it was last reported
    int burst                        # accepts of that wait; 0 = one of them found nobody

cdef class EpollListeners(Backend):
    cdef uint32_t n_waits            # counts wait()
    cdef int epfd
    cdef int spare_fd                # held in reserve: given up for a moment to reject a client at EMFILE; -1 = lost
    cdef int64_t reserve             # descriptors that are not ours to use
    cdef int64_t ceiling             # accepted descriptors stay below this number; the soft limit less the reserve
    cdef int64_t ceiling_at_ms       # when it was read
    cdef char *reject_message        # a copy of ours, so that it can be sent without the GIL
    cdef size_t reject_bytes
    cdef epoll_listener_t listeners[EPOLL_LISTENERS_MAX]

    cdef void _read_ceiling(self) noexcept nogil
    cdef void _hold_spare(self) noexcept nogil
    cdef int _arm(self, epoll_listener_t *listener, uint32_t number, bint armed) noexcept nogil
    cdef int _refuse(self, epoll_listener_t *listener) noexcept nogil
    cdef int _keep_port(self, epoll_listener_t *listener, sockaddr *address, socklen_t length) noexcept nogil
    cdef int _listen_again(self, epoll_listener_t *listener) noexcept nogil
    cdef bint _is_at_ceiling(self, epoll_listener_t *listener) noexcept nogil
    cdef void _set_burst(self, epoll_listener_t *listener, int batch) noexcept nogil
    cdef int _accept_clients(self, uint32_t number, io_event_t *events, int capacity) noexcept nogil
    cdef accept_class_t _emit_accept_ended(self, io_event_t *event, epoll_listener_t *listener, int error) noexcept nogil
    cdef int _reject_clients(self, uint32_t number, io_event_t *events) noexcept nogil
    cdef int _accept_to_reject(self, epoll_listener_t *listener) noexcept nogil
    cdef void _turn_away(self, int fd) noexcept nogil
