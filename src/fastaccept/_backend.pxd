"""The seam: what the loop asks of the system, and what the system reports.

It is completion-shaped, because that is the half that both systems can give: epoll performs the call and reports it, a
completion port reports what the system has done. Nothing above this line names an errno of accept, a descriptor or a
completion; a scripted backend (_testing) plays the system from a test.

    event               epoll                                       completion port
    IO_ACCEPTED         EPOLLIN on the listener, accept4            AcceptEx completed
    IO_ACCEPT_ENDED     accept4 failed                              a post or its completion failed
    IO_REJECTED         accept4, message, close                     the same with accept()
    IO_CONNECTED        connect() ended, in either way              ConnectEx ended
    IO_READABLE         EPOLLIN, EPOLLHUP or EPOLLERR               the zero-byte WSARecv completed
    IO_SENT             EPOLLOUT after a short send                 the overlapped rest of a send completed
    IO_FAILED           EPOLLERR while nothing was being read       an overlapped call failed
    IO_CLOSED           after close(), with the next batch          the last OVERLAPPED has come back
    IO_WAKEUP           eventfd                                     a posted completion

Contract
  - A connection's slot is named by its token from attach() or connect() on, until IO_CLOSED has been reported for it; only
    then may the slot be used again. close_socket() is a request for that event.
  - accept_room is written by the loop before each wait: no more IO_ACCEPTED than that are reported by it, over all listeners.
  - Between read_start() and read_stop(), IO_READABLE comes when recv() would give something, and after each recv() as long as there is
    more. One that no recv() follows comes again at the next read_start() only. It may come once more after read_stop(), or with
    nothing to read.
  - All calls but wakeup() come from the loop's thread. Those that can fail return 0 or more, or -errno.
  - Where the system numbers its errors in another way (Windows), an error carries that number above the errno (error_code), for
    OSError.winerror. EAGAIN and EINTR, which the loop compares with, never do.
"""
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint16_t, uint32_t, uint64_t
from fastaccept._buffers cimport io_slice_t

ctypedef intptr_t handle_t           # a descriptor, or a SOCKET

cdef enum io_kind_t:
    IO_ACCEPTED                      # token = listener; handle, non-blocking and not inherited; peer
    IO_ACCEPT_ENDED                  # token = listener; accept_class, error = errno
    IO_REJECTED                      # token = listener; result = clients told and closed
    IO_CONNECTED                     # result = 0 or -errno
    IO_READABLE                      # recv() gives data, 0 at the end, or an error, and does not block
    IO_SENT                          # result = bytes taken since send() returned; its slices are no longer needed
    IO_FAILED                        # error = errno; close_socket() is all that can follow
    IO_CLOSED                        # the system holds no pointer into the slot
    IO_WAKEUP                        # wakeup() was called

cdef inline int error_code(int error, int system_code) noexcept nogil:
    return error | system_code << 8

cdef inline int error_errno(int error) noexcept nogil:
    return error & 0xFF              # every errno is below 256

cdef enum accept_class_t:            # how an accept ended, sorted once, by the backend
    ACCEPT_OK
    ACCEPT_EMPTY                     # nobody waits; not reported
    ACCEPT_RETRY                     # that client is gone; the next one may be there
    ACCEPT_PAUSE                     # a resource of the process or the machine is short
    ACCEPT_FATAL                     # this listener is dead
    ACCEPT_UNKNOWN                   # not in any table: back off from this listener

cdef enum accept_mode_t:             # what a client of a listener meets
    MODE_ACCEPT                      # it is accepted
    MODE_QUEUE                       # it waits in the kernel's backlog; no accept call is made
    MODE_REFUSE                      # it is refused, and those that waited are reset; the port stays ours
    MODE_REJECT                      # it is accepted, told, and closed

cdef enum address_family_t:          # the families that we serve, in our own numbers: the systems' differ
    FAMILY_NONE = 0
    FAMILY_UNIX = 1
    FAMILY_INET = 4
    FAMILY_INET6 = 6

cdef struct address_t:
    uint8_t family                   # address_family_t
    uint8_t ip[16]                   # network order; the first 4 for FAMILY_INET
    uint16_t port                    # host order
    uint32_t scope                   # FAMILY_INET6 only

cdef struct io_event_t:
    uint64_t token
    int64_t result
    handle_t handle                  # IO_ACCEPTED: owned by whoever takes the event
    int32_t error
    uint8_t kind                     # io_kind_t
    uint8_t accept_class             # accept_class_t
    address_t peer                   # IO_ACCEPTED

cdef enum:
    TOKEN_WAKEUP = 0xFFFFFFFF        # generation 0, like the listeners, whose token is their number

cdef class Backend:
    cdef int64_t accept_room         # written by the loop before each wait; counted down for each IO_ACCEPTED
    cdef uint64_t accept_calls       # for stats(): accept calls made, by any mode
    cdef uint64_t accepts_abandoned  # for stats(): accepts whose client, if they had one already, was reset and not reported

    # life
    cdef int open(self) except -1                             # raises OSError
    cdef void shutdown(self) noexcept nogil                   # closes whatever is still open
    cdef int64_t now_us(self) noexcept nogil                  # monotonic
    cdef int64_t now_ms(self) noexcept nogil                  # the same, in milliseconds
    # listeners: numbers from 0, given by the loop
    cdef int listener_open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil   # owns handle unless it fails
    cdef int listener_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil
    cdef void listener_close(self, uint32_t number) noexcept nogil
    cdef int listener_queue(self, uint32_t number, int64_t *queued, int64_t *backlog) noexcept nogil
    cdef int set_reject_message(self, bytes message) except -1
    cdef void set_reserve(self, int64_t descriptors) noexcept nogil    # keep so many free; they count as a shortage
    # connections
    cdef int attach(self, uint64_t token, handle_t handle) noexcept nogil        # owns handle unless it fails
    cdef void discard(self, handle_t handle) noexcept nogil                      # an IO_ACCEPTED that nobody will serve: reset
    cdef int connect(self, uint64_t token, const address_t *peer, const address_t *source) noexcept nogil
    cdef int read_start(self, uint64_t token) noexcept nogil
    cdef void read_stop(self, uint64_t token) noexcept nogil
    cdef int64_t recv(self, uint64_t token, char *buffer, size_t capacity) noexcept nogil    # -EAGAIN: nothing there
    # Tries at once. Fewer bytes than offered: the rest is under way, the slices stay valid and no send() follows, until IO_SENT.
    cdef int64_t send(self, uint64_t token, const io_slice_t *slices, int n) noexcept nogil
    cdef int shutdown_write(self, uint64_t token) noexcept nogil
    cdef int64_t unsent(self, uint64_t token) noexcept nogil           # bytes (or more than 0) the peer has not acknowledged; -1 = unknown
    cdef int local_address(self, uint64_t token, address_t *address) noexcept nogil
    cdef int64_t handle_of(self, uint64_t token) noexcept nogil        # for get_extra_info; -1 = none
    cdef int set_option(self, uint64_t token, int option, int value) noexcept nogil    # socket_option_t
    cdef void close_socket(self, uint64_t token, bint reset) noexcept nogil
    # the turn
    cdef int wait(self, io_event_t *events, int capacity, int64_t timeout_ms) noexcept nogil    # -1 = for ever; -EINTR: a signal
    cdef void wakeup(self) noexcept nogil                              # any thread
    # for stats()
    cdef size_t bytes_held(self) noexcept nogil

cdef enum socket_option_t:
    OPTION_NODELAY
    OPTION_KEEPALIVE

cdef inline io_event_t *io_emit(io_event_t *event, io_kind_t kind, uint64_t token) noexcept nogil:
    """Begin an event; the caller adds what its kind has besides."""
    event.kind = kind
    event.token = token
    event.result = 0
    event.error = 0
    event.handle = -1
    return event

cdef object address_to_python(const address_t *address)                # what socket.getpeername() gives
cdef int address_from_python(object host, int port, address_t *address) except -1    # numeric hosts only; raises ValueError
