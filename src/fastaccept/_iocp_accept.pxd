"""The accepting half of IocpBackend: listening sockets, and the AcceptEx calls posted on them. See _iocp_accept.pyx.

A posted accept_op_t goes:

    posted --completed: a client--> ACCEPT, and room --> IO_ACCEPTED, its socket is the loop's
        |                           no room, or QUEUE --> held: it waits as it would in the backlog, and is the next to be served
        |                           REFUSE, closed --> reset        REJECT --> told, closed, IO_REJECTED
        +--completed: an error----> IO_ACCEPT_ENDED, once for each wait; nothing is posted until the loop has heard it
        +--cancelled (the mode has changed, or the room has shrunk) --> its socket is closed

Guarantees
  - Posted accepts are no more than accept_room in all, but for one on each accepting listener: with room for one and two
    listeners both have to be open to the next client. Who is taken beyond the room is held, so the limit holds.
  - A client that an accept has taken is served, told or reset. None is forgotten: a held one is served as soon as there is room.
  - An op is freed when its OVERLAPPED has come back, and not before.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from fastaccept._backend cimport accept_class_t, accept_mode_t, address_t, handle_t, io_event_t
from fastaccept._platform.win32 cimport HANDLE, OVERLAPPED, SOCKET, sockaddr_storage
from fastaccept._platform.win32_calls cimport calls_t

cdef enum:
    IOCP_LISTENERS_MAX = 64
    ADDRESSES_BYTES = 288            # two of ADDRESS_BYTES
    KEY_LISTENER = 1                 # completion key of every listening socket; a connection's is its slot

cdef struct accept_op_t:
    OVERLAPPED overlapped            # first: a completion names it by this
    SOCKET accepted                  # the socket that the client gets
    accept_op_t *next                # posted ops of a listener, held ones, or free ones
    accept_op_t *previous            # posted only
    uint32_t listener
    uint32_t epoch                   # of the listening socket that it was posted on
    uint8_t is_cancelled
    address_t peer                   # once held
    uint8_t addresses[ADDRESSES_BYTES]

cdef struct iocp_listener_t:
    SOCKET handle                    # INVALID_SOCKET = none: closed, or lost while refusing
    accept_op_t *posted              # list
    uint32_t n_posted
    uint32_t target                  # how many to have posted: follows the rate
    uint32_t taken                   # clients taken since the last wait began
    uint32_t skipped                 # clients lost in a row (ACCEPT_RETRY)
    uint32_t epoch                   # counts the listening sockets that had this number
    int backlog
    int family
    uint8_t is_open                  # the number is in use
    uint8_t mode                     # accept_mode_t
    uint8_t has_ended                # a failure was reported; nothing is posted in this wait
    uint8_t is_paused                # SO_PAUSE_ACCEPT is set
    uint8_t is_exclusive             # SO_EXCLUSIVEADDRUSE was on when we got it
    uint8_t reuses_address           # SO_REUSEADDR
    uint8_t is_v6only
    uint8_t has_nodelay
    sockaddr_storage name            # what it is bound to
    int name_length

cdef class IocpListeners:
    cdef calls_t *calls              # the backend's
    cdef HANDLE port
    cdef int64_t *room               # Backend.accept_room
    cdef uint64_t *made              # Backend.accept_calls
    cdef uint64_t *abandoned         # Backend.accepts_abandoned
    cdef iocp_listener_t listeners[IOCP_LISTENERS_MAX]
    cdef uint32_t n_listeners        # highest number in use, plus 1
    cdef uint32_t n_posted           # in all
    cdef uint32_t n_held
    cdef uint32_t n_ops              # allocated
    cdef accept_op_t *held_first
    cdef accept_op_t *held_last
    cdef accept_op_t *free_ops
    cdef SOCKET spare                # given up for a moment to reject a client when no socket can be made
    cdef char *reject_message
    cdef size_t reject_bytes

    cdef int open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil
    cdef int set_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil
    cdef void close(self, uint32_t number) noexcept nogil
    cdef int set_reject_message(self, bytes message) except -1
    # before the wait: what is held, then what is to be posted; how many events were written
    cdef int prepare(self, io_event_t *events, int capacity) noexcept nogil
    # in the batch: an AcceptEx has completed; 0 or 1 event
    cdef int completed(self, accept_op_t *op, io_event_t *event) noexcept nogil
    cdef void shutdown(self) noexcept nogil                  # close the sockets; the ops come back to completed()
    cdef void free_memory(self) noexcept nogil               # after the last op has come back
    cdef size_t bytes_held(self) noexcept nogil

    cdef void _hold_spare(self) noexcept nogil
    cdef int _refuse(self, iocp_listener_t *listener) noexcept nogil
    cdef int _bind_again(self, iocp_listener_t *listener) noexcept nogil
    cdef int _listen_again(self, iocp_listener_t *listener) noexcept nogil
    cdef void _reset_waiting(self, iocp_listener_t *listener) noexcept nogil
    cdef void _cancel(self, iocp_listener_t *listener, uint32_t keep) noexcept nogil
    cdef accept_op_t *_op_new(self) noexcept nogil
    cdef void _op_free(self, accept_op_t *op) noexcept nogil
    cdef void _hold(self, accept_op_t *op) noexcept nogil
    cdef int _settle_held(self, io_event_t *events, int capacity) noexcept nogil
    cdef int _dispose(self, accept_op_t *op, io_event_t *event) noexcept nogil
    cdef int _post(self, uint32_t number) noexcept nogil
    cdef int _open_for_client(self, iocp_listener_t *listener, SOCKET *made) noexcept nogil
    cdef int _top_up(self, uint32_t number, io_event_t *event) noexcept nogil
    cdef int _ended(self, uint32_t number, int code, io_event_t *event) noexcept nogil
    cdef void _turn_away(self, SOCKET s) noexcept nogil
