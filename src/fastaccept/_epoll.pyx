"""EpollBackend: the seam over epoll(7).

It owns the descriptors, the epoll set and one epoll_slot_t for each connection; it knows nothing of what the bytes mean or
why a listener is to stop. Level-triggered, with these habits:

- A socket enters the epoll set when something is first awaited of it; one that is served and closed in one go never does.
- What the kernel watches is only made smaller when an unwanted event comes, so that a send that was short, or reading that
  pauses for a moment, costs no epoll_ctl back and forth.
- A listener that does not accept is out of the epoll set: watching for nothing would still report EPOLLHUP after the
  shutdown() that makes it refuse.

Sources: epoll(7), accept(2), tcp(7), unix(7), getrlimit(2); for shutdown() on a listening socket inet_shutdown() in
net/ipv4/af_inet.c, which stops listening and keeps the port.
"""
import os

from libc.errno cimport EADDRINUSE, EAGAIN, EINPROGRESS, EINTR, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSYS, ENOTCONN, errno
from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from posix.time cimport timespec
from fastaccept._backend cimport (
    ACCEPT_EMPTY, ACCEPT_PAUSE, ACCEPT_RETRY, ACCEPT_UNKNOWN,
    FAMILY_INET,
    IO_ACCEPTED, IO_ACCEPT_ENDED, IO_CLOSED, IO_CONNECTED, IO_FAILED, IO_READABLE, IO_REJECTED, IO_SENT, IO_WAKEUP,
    MODE_ACCEPT, MODE_QUEUE, MODE_REFUSE, MODE_REJECT, OPTION_KEEPALIVE, OPTION_NODELAY, TOKEN_WAKEUP,
    accept_class_t, accept_mode_t, address_t, handle_t, io_event_t, io_kind_t,
)
from fastaccept._buffers cimport io_slice_t
from fastaccept._slots cimport SLOT_NONE, token_generation, token_index
from fastaccept._platform cimport linux as sys
from fastaccept._platform.accept_errno cimport accept_class_of
from fastaccept._platform.linux_sockets cimport (
    address_from_system, address_to_system, close_if_open, get_int, last_error, pending_error, set_int,
)

cdef enum:
    # Accepts by one listener in one wait: what else is ready must not wait for a storm to end.
    ACCEPT_BATCH = 64
    # Clients turned away in one wait. Small, because the clients that were admitted come first.
    REJECT_BATCH = 16
    # Clients lost in a row before the listener is backed off from: a firewall or a seccomp filter may answer EPERM for ever
    # without taking anybody from the queue, and a level-triggered listener would spin on that.
    SKIPPED_MAX = 256
    DISCARD_BYTES = 65536
    DISCARD_ROUNDS = 16              # so much input of a rejected client is dropped before its socket is closed


cdef inline io_event_t *_emit(io_event_t *event, io_kind_t kind, uint64_t token) noexcept nogil:
    event.kind = kind
    event.token = token
    event.result = 0
    event.error = 0
    event.handle = -1
    return event


cdef class EpollBackend(Backend):
    def __cinit__(self):
        cdef int i
        self.epfd = self.wakeup_fd = self.spare_fd = -1
        self.first_closed = SLOT_NONE
        for i in range(EPOLL_LISTENERS_MAX):
            self.listeners[i].fd = -1

    def __dealloc__(self):
        self.shutdown()
        free(self.reject_message)

    # ---- life

    cdef int open(self) except -1:
        cdef sys.epoll_event event
        self.epfd = sys.epoll_create1(sys.EPOLL_CLOEXEC)
        self.wakeup_fd = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC) if self.epfd >= 0 else -1
        event.events = sys.EPOLLIN
        event.data.u64 = TOKEN_WAKEUP
        if self.wakeup_fd < 0 or sys.epoll_ctl(self.epfd, sys.EPOLL_CTL_ADD, self.wakeup_fd, &event) < 0:
            error = errno
            self.shutdown()
            raise OSError(error, f"epoll can't be set up: {os.strerror(error)}")
        self._hold_spare()
        self.set_reserve(0)
        return 0

    cdef void shutdown(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.n_slots):
            if self.slots[i].fd >= 0:
                sys.close(self.slots[i].fd)
        free(self.slots)
        self.slots = NULL
        self.n_slots = 0
        self.first_closed = SLOT_NONE
        for i in range(EPOLL_LISTENERS_MAX):
            self.listener_close(i)
        close_if_open(&self.spare_fd)
        close_if_open(&self.wakeup_fd)
        close_if_open(&self.epfd)

    cdef int64_t now_ms(self) noexcept nogil:
        cdef timespec now
        sys.clock_gettime(sys.CLOCK_MONOTONIC, &now)
        return <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000

    # ---- listeners

    cdef int listener_open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil:
        cdef epoll_listener_t *listener = &self.listeners[number]
        cdef int fd = <int>handle
        if sys.fcntl(fd, sys.F_SETFL, sys.fcntl(fd, sys.F_GETFL) | sys.O_NONBLOCK) < 0 or sys.listen(fd, backlog) < 0:
            return last_error()
        memset(listener, 0, sizeof(epoll_listener_t))
        listener.fd = fd
        listener.backlog = backlog
        listener.mode = MODE_QUEUE
        listener.is_unix = get_int(fd, sys.SOL_SOCKET, sys.SO_DOMAIN) == sys.AF_UNIX
        listener.reuses_address = get_int(fd, sys.SOL_SOCKET, sys.SO_REUSEADDR) != 0
        return 0

    cdef int listener_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil:
        cdef epoll_listener_t *listener = &self.listeners[number]
        cdef int done = 0
        if listener.mode == MODE_REFUSE and mode != MODE_REFUSE:
            done = self._listen_again(listener)
        if done == 0:
            done = self._arm(listener, number, mode == MODE_ACCEPT or mode == MODE_REJECT)
        if done == 0 and mode == MODE_REFUSE and listener.mode != MODE_REFUSE:
            done = self._refuse(listener)
        if done == 0:
            listener.mode = mode
            listener.skipped = 0
            self._hold_spare()
            self._read_ceiling()
        return done

    cdef int _arm(self, epoll_listener_t *listener, uint32_t number, bint armed) noexcept nogil:
        """Put the listener into the epoll set, or take it out."""
        cdef sys.epoll_event event
        if listener.is_armed == armed:
            return 0
        event.events = sys.EPOLLIN
        event.data.u64 = number
        if sys.epoll_ctl(self.epfd, sys.EPOLL_CTL_ADD if armed else sys.EPOLL_CTL_DEL, listener.fd, &event) < 0:
            return last_error()
        listener.is_armed = armed
        return 0

    cdef int _refuse(self, epoll_listener_t *listener) noexcept nogil:
        """Reset those who wait, refuse those who come, keep the port.

        SO_REUSEADDR goes first: with it set, another process that sets it too could take the port meanwhile. A Unix-domain
        listener is left as it is, and its clients wait: unix_listen() never takes the shutdown back.
        """
        cdef sys.sockaddr_storage address
        cdef sys.socklen_t length = sizeof(address)
        if listener.is_unix:
            return 0
        sys.getsockname(listener.fd, <sys.sockaddr *>&address, &length)
        if listener.reuses_address:
            set_int(listener.fd, sys.SOL_SOCKET, sys.SO_REUSEADDR, 0)
        if sys.shutdown(listener.fd, sys.SHUT_RD) < 0:
            return last_error()
        return self._keep_port(listener, <sys.sockaddr *>&address, length)

    cdef int _keep_port(self, epoll_listener_t *listener, sys.sockaddr *address, sys.socklen_t length) noexcept nogil:
        """A port that the system chose (bind() to port 0) is let go by the shutdown: tcp_disconnect() keeps only what bind() was
        told (SOCK_BINDPORT_LOCK). So it is bound again by its number; EINVAL tells that it never was let go."""
        cdef int done = 0 if sys.bind(listener.fd, address, length) == 0 else last_error()
        if done == -EADDRINUSE and listener.reuses_address:      # by our own connections
            set_int(listener.fd, sys.SOL_SOCKET, sys.SO_REUSEADDR, 1)
            done = 0 if sys.bind(listener.fd, address, length) == 0 else last_error()
            set_int(listener.fd, sys.SOL_SOCKET, sys.SO_REUSEADDR, 0)
        return 0 if done == -EINVAL else done

    cdef int _listen_again(self, epoll_listener_t *listener) noexcept nogil:
        """SO_REUSEADDR comes back first: without it listen() is EADDRINUSE while old connections of the port live."""
        if listener.is_unix:
            return 0
        if listener.reuses_address:
            set_int(listener.fd, sys.SOL_SOCKET, sys.SO_REUSEADDR, 1)
        return 0 if sys.listen(listener.fd, listener.backlog) == 0 else last_error()

    cdef void listener_close(self, uint32_t number) noexcept nogil:
        cdef epoll_listener_t *listener = &self.listeners[number]
        if listener.fd >= 0:
            # Out of the set by hand: a forked child may hold the same open file, and closing ours would leave it watched.
            self._arm(listener, number, False)
            sys.close(listener.fd)
            listener.fd = -1

    cdef int listener_queue(self, uint32_t number, int64_t *queued, int64_t *backlog) noexcept nogil:
        """tcpi_unacked and tcpi_sacked of a listening socket are its accept queue's length and size (tcp_get_info())."""
        cdef uint32_t info[8]
        cdef sys.socklen_t length = sizeof(info)
        cdef epoll_listener_t *listener = &self.listeners[number]
        if listener.fd < 0 or listener.is_unix or listener.mode == MODE_REFUSE:
            return -ENOSYS
        if sys.getsockopt(listener.fd, sys.IPPROTO_TCP, sys.TCP_INFO, info, &length) < 0:
            return last_error()
        queued[0] = info[6]
        backlog[0] = info[7]
        return 0

    cdef int set_reject_message(self, bytes message) except -1:
        cdef char *copy = <char *>malloc(len(message) + 1)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, <const char *>message, len(message))
        free(self.reject_message)
        self.reject_message = copy
        self.reject_bytes = len(message)
        return 0

    cdef void set_reserve(self, int64_t descriptors) noexcept nogil:
        self.reserve = descriptors
        self._read_ceiling()

    cdef void _read_ceiling(self) noexcept nogil:
        """The soft limit may be changed from outside at any time (prlimit), so it is read again when a listener changes."""
        cdef sys.rlimit limit
        self.ceiling = INT_MAX
        if sys.getrlimit(sys.RLIMIT_NOFILE, &limit) == 0 and limit.rlim_cur < INT_MAX:
            self.ceiling = <int64_t>limit.rlim_cur - self.reserve

    cdef void _hold_spare(self) noexcept nogil:
        """A duplicate of the epoll descriptor: it opens no file, and another one is always there to be made."""
        if self.spare_fd < 0:
            self.spare_fd = sys.fcntl(self.epfd, sys.F_DUPFD_CLOEXEC, 0)

    # ---- accepting

    cdef bint _is_at_ceiling(self, epoll_listener_t *listener) noexcept nogil:
        """True while only reserved descriptors are left. The lowest free number is always given out (open(2)), so the number
        that a duplicate gets tells."""
        cdef int fd
        if not listener.met_ceiling or self.reserve == 0:
            return False
        fd = sys.fcntl(self.epfd, sys.F_DUPFD_CLOEXEC, 0)
        if fd >= 0:
            sys.close(fd)
        listener.met_ceiling = fd < 0 or fd >= self.ceiling
        return listener.met_ceiling

    cdef int _accept_clients(self, uint32_t number, io_event_t *events, int capacity) noexcept nogil:
        """Take clients until nobody waits, or the room or the batch is used up. Returns the events written."""
        cdef epoll_listener_t *listener = &self.listeners[number]
        cdef sys.sockaddr_storage peer
        cdef sys.socklen_t length
        cdef int written = 0, fd
        if self._is_at_ceiling(listener):
            self._emit_accept_ended(_emit(events, IO_ACCEPT_ENDED, number), listener, EMFILE)
            return 1
        while written < min(capacity, <int>ACCEPT_BATCH) and self.accept_room > 0:
            length = sizeof(peer)
            peer.ss_family = 0
            self.accept_calls += 1
            fd = sys.accept4(listener.fd, <sys.sockaddr *>&peer, &length, sys.SOCK_NONBLOCK | sys.SOCK_CLOEXEC)
            if fd < 0 and errno == EAGAIN:
                listener.skipped = 0
                break
            written += 1
            if fd < 0:
                if self._emit_accept_ended(_emit(&events[written - 1], IO_ACCEPT_ENDED, number), listener, errno) != ACCEPT_RETRY:
                    break
                continue
            listener.skipped = 0
            self.accept_room -= 1
            _emit(&events[written - 1], IO_ACCEPTED, number).handle = fd
            address_from_system(&peer, &events[written - 1].peer)
            if fd >= self.ceiling - 1:
                listener.met_ceiling = True
                break
        return written

    cdef accept_class_t _emit_accept_ended(self, io_event_t *event, epoll_listener_t *listener, int error) noexcept nogil:
        cdef accept_class_t accept_class = accept_class_of(error)
        if accept_class == ACCEPT_RETRY:
            listener.skipped += 1
            if listener.skipped >= SKIPPED_MAX:
                accept_class = ACCEPT_UNKNOWN
        event.error = error
        event.accept_class = accept_class
        return accept_class

    cdef int _reject_clients(self, uint32_t number, io_event_t *events) noexcept nogil:
        """Take a few clients, tell them, and let them go. Writes one or two events."""
        cdef epoll_listener_t *listener = &self.listeners[number]
        cdef int written = 0, rejected = 0, fd, error = 0
        for _ in range(REJECT_BATCH):
            fd = self._accept_to_reject(listener)
            if fd < 0:
                error = -fd
                if accept_class_of(error) == ACCEPT_RETRY:
                    continue
                break
            self._turn_away(fd)
            rejected += 1
        self._hold_spare()
        if rejected:
            _emit(events, IO_REJECTED, number).result = rejected
            written = 1
        if error and accept_class_of(error) != ACCEPT_EMPTY:
            self._emit_accept_ended(_emit(&events[written], IO_ACCEPT_ENDED, number), listener, error)
            written += 1
        return written

    cdef int _accept_to_reject(self, epoll_listener_t *listener) noexcept nogil:
        """A descriptor, by giving the spare one up if that is what it takes; or -errno."""
        cdef int flags = sys.SOCK_NONBLOCK | sys.SOCK_CLOEXEC
        cdef int fd
        self.accept_calls += 1
        fd = sys.accept4(listener.fd, NULL, NULL, flags)
        if fd >= 0 or (errno != EMFILE and errno != ENFILE) or self.spare_fd < 0:
            return fd if fd >= 0 else last_error()
        sys.close(self.spare_fd)     # held again by _reject_clients, once this client's socket is closed
        self.spare_fd = -1
        self.accept_calls += 1
        fd = sys.accept4(listener.fd, NULL, NULL, flags)
        return fd if fd >= 0 else last_error()

    cdef void _turn_away(self, int fd) noexcept nogil:
        """Message, FIN, close. What the client has sent is read away first: closing on unread input is a reset (RFC 1122,
        4.2.2.13), and that could overtake the message."""
        cdef char discarded[DISCARD_BYTES]
        if self.reject_bytes:
            sys.send(fd, self.reject_message, self.reject_bytes, sys.MSG_NOSIGNAL | sys.MSG_DONTWAIT)
        sys.shutdown(fd, sys.SHUT_WR)
        for _ in range(DISCARD_ROUNDS):
            if sys.recv(fd, discarded, DISCARD_BYTES, sys.MSG_DONTWAIT) <= 0:
                break
        sys.close(fd)

    # ---- connections

    cdef epoll_slot_t *_slot_of(self, uint64_t token) noexcept nogil:
        """The slot of a token that is in use, else NULL."""
        cdef uint32_t index = token_index(token)
        if index >= self.n_slots or self.slots[index].fd < 0 or self.slots[index].generation != token_generation(token):
            return NULL
        return &self.slots[index]

    cdef epoll_slot_t *_slot_open(self, uint64_t token) noexcept nogil:
        """The slot for a new token; NULL: out of memory."""
        cdef uint32_t index = token_index(token)
        cdef uint32_t wanted = max(index + 1, max(<uint32_t>64, 2 * self.n_slots))
        cdef uint32_t i
        cdef void *grown
        if index >= self.n_slots:
            grown = realloc(self.slots, wanted * sizeof(epoll_slot_t))
            if grown == NULL:
                return NULL
            self.slots = <epoll_slot_t *>grown
            for i in range(self.n_slots, wanted):
                self.slots[i].fd = -1
            self.n_slots = wanted
        memset(&self.slots[index], 0, sizeof(epoll_slot_t))
        self.slots[index].fd = -1
        self.slots[index].generation = token_generation(token)
        self.slots[index].next_closed = SLOT_NONE
        return &self.slots[index]

    cdef int attach(self, uint64_t token, handle_t handle) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_open(token)
        if slot == NULL:
            return -ENOMEM
        slot.fd = <int>handle
        return 0

    cdef void discard(self, handle_t handle) noexcept nogil:
        cdef sys.linger_t reset
        reset.l_onoff = 1
        reset.l_linger = 0
        sys.setsockopt(<int>handle, sys.SOL_SOCKET, sys.SO_LINGER, &reset, sizeof(reset))
        sys.close(<int>handle)

    cdef int connect(self, uint64_t token, const address_t *peer, const address_t *source) noexcept nogil:
        cdef sys.sockaddr_storage storage
        cdef sys.socklen_t length
        cdef int family = sys.AF_INET if peer.family == FAMILY_INET else sys.AF_INET6
        cdef int done = 0
        cdef epoll_slot_t *slot = self._slot_open(token)
        if slot == NULL:
            return -ENOMEM
        slot.fd = sys.socket(family, sys.SOCK_STREAM | sys.SOCK_NONBLOCK | sys.SOCK_CLOEXEC, 0)
        if slot.fd < 0:
            return last_error()
        if source != NULL:
            # Without this a bind to port 0 takes a port away from every destination (ip(7)).
            set_int(slot.fd, sys.IPPROTO_IP, sys.IP_BIND_ADDRESS_NO_PORT, 1)
            length = address_to_system(source, &storage)
            done = 0 if sys.bind(slot.fd, <sys.sockaddr *>&storage, length) == 0 else last_error()
        if done == 0:
            length = address_to_system(peer, &storage)
            done = 0 if sys.connect(slot.fd, <sys.sockaddr *>&storage, length) == 0 else last_error()
        if done == 0 or done == -EINPROGRESS:
            slot.is_connecting = True
            slot.wanted = sys.EPOLLOUT
            done = self._watch(slot, token_index(token))
        if done < 0:
            sys.close(slot.fd)
            slot.fd = -1
        return done

    cdef int _watch(self, epoll_slot_t *slot, uint32_t index) noexcept nogil:
        """Make the kernel watch what is wanted."""
        cdef sys.epoll_event event
        if slot.is_watched and slot.watched == slot.wanted:
            return 0
        event.events = slot.wanted
        event.data.u64 = (<uint64_t>slot.generation << 32) | index
        if sys.epoll_ctl(self.epfd, sys.EPOLL_CTL_MOD if slot.is_watched else sys.EPOLL_CTL_ADD, slot.fd, &event) < 0:
            return last_error()
        slot.is_watched = True
        slot.watched = slot.wanted
        return 0

    cdef int read_start(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return -ENOTCONN
        slot.wanted |= sys.EPOLLIN
        # A wider watch than wanted may stand from before; it is narrowed when it shows.
        return 0 if slot.is_watched and (slot.watched & sys.EPOLLIN) else self._watch(slot, token_index(token))

    cdef void read_stop(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot != NULL:
            slot.wanted &= ~<uint8_t>sys.EPOLLIN

    cdef int64_t recv(self, uint64_t token, char *buffer, size_t capacity) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef ssize_t n
        if slot == NULL:
            return -ENOTCONN
        n = sys.recv(slot.fd, buffer, capacity, 0)
        return n if n >= 0 else last_error()

    cdef int64_t send(self, uint64_t token, const io_slice_t *slices, int n) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef sys.msghdr message
        cdef size_t offered = 0
        cdef ssize_t sent
        cdef int i, done
        if slot == NULL:
            return -ENOTCONN
        for i in range(n):
            offered += slices[i].length
        if n == 1:
            sent = sys.send(slot.fd, slices[0].base, slices[0].length, sys.MSG_NOSIGNAL)
        else:
            memset(&message, 0, sizeof(message))
            message.msg_iov = <sys.iovec *>slices
            message.msg_iovlen = n
            sent = sys.sendmsg(slot.fd, &message, sys.MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                return last_error()
            sent = 0
        if <size_t>sent < offered:
            slot.wanted |= sys.EPOLLOUT
            if not (slot.is_watched and (slot.watched & sys.EPOLLOUT)):
                done = self._watch(slot, token_index(token))
                if done < 0:
                    return done
        return sent

    cdef int shutdown_write(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return -ENOTCONN
        return 0 if sys.shutdown(slot.fd, sys.SHUT_WR) == 0 else last_error()

    cdef int64_t unsent(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef int waiting = 0
        if slot == NULL or sys.ioctl(slot.fd, sys.SIOCOUTQ, &waiting) < 0:
            return -1
        return waiting

    cdef int local_address(self, uint64_t token, address_t *address) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef sys.sockaddr_storage storage
        cdef sys.socklen_t length = sizeof(storage)
        if slot == NULL:
            return -ENOTCONN
        if sys.getsockname(slot.fd, <sys.sockaddr *>&storage, &length) < 0:
            return last_error()
        address_from_system(&storage, address)
        return 0

    cdef int64_t handle_of(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        return slot.fd if slot != NULL else -1

    cdef int set_option(self, uint64_t token, int option, int value) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return -ENOTCONN
        if option == OPTION_NODELAY:
            return set_int(slot.fd, sys.IPPROTO_TCP, sys.TCP_NODELAY, value)
        if option == OPTION_KEEPALIVE:
            return set_int(slot.fd, sys.SOL_SOCKET, sys.SO_KEEPALIVE, value)
        return -ENOSYS

    cdef void close_socket(self, uint64_t token, bint reset) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:             # a connect() that failed at once left no descriptor; its slot is reported all the same
            if token_index(token) >= self.n_slots:
                return
            slot = &self.slots[token_index(token)]
        elif reset:
            self.discard(slot.fd)
        else:
            sys.close(slot.fd)
        slot.fd = -1
        slot.next_closed = self.first_closed
        self.first_closed = token_index(token)

    # ---- the turn

    cdef int _emit_closed(self, io_event_t *events, int capacity) noexcept nogil:
        cdef int written = 0
        cdef uint32_t index
        while self.first_closed != SLOT_NONE and written < capacity:
            index = self.first_closed
            self.first_closed = self.slots[index].next_closed
            _emit(&events[written], IO_CLOSED, (<uint64_t>self.slots[index].generation << 32) | index)
            written += 1
        return written

    cdef int _emit_socket(self, io_event_t *events, uint64_t token, uint32_t happened) noexcept nogil:
        """What happened on a connection: none, one or two events."""
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef uint32_t ended = happened & (sys.EPOLLERR | sys.EPOLLHUP)
        cdef int written = 0
        if slot == NULL:             # the loop drops it, and counts it
            _emit(events, IO_READABLE, token)
            return 1
        if slot.is_connecting:
            slot.is_connecting = False
            slot.wanted = 0
            _emit(events, IO_CONNECTED, token).result = pending_error(slot.fd)
            return 1
        if (happened & sys.EPOLLOUT or ended) and slot.wanted & sys.EPOLLOUT:
            slot.wanted &= ~<uint8_t>sys.EPOLLOUT
            _emit(events, IO_SENT, token)
            written = 1
        if (happened & sys.EPOLLIN or ended) and slot.wanted & sys.EPOLLIN:
            _emit(&events[written], IO_READABLE, token)
            return written + 1
        if written:
            return written
        if happened & sys.EPOLLERR:
            _emit(events, IO_FAILED, token).error = -pending_error(slot.fd)
            written = 1
        if ended:                    # reported whether wanted or not, so it must leave the set; read_start() brings it back
            sys.epoll_ctl(self.epfd, sys.EPOLL_CTL_DEL, slot.fd, NULL)
            slot.is_watched = False
        elif slot.watched != slot.wanted:
            self._watch(slot, token_index(token))
        return written

    cdef int _emit_ready(self, io_event_t *events, int capacity, const sys.epoll_event *ready) noexcept nogil:
        cdef uint64_t token = ready.data.u64
        cdef uint64_t counter
        if token == TOKEN_WAKEUP:
            sys.read(self.wakeup_fd, &counter, sizeof(counter))
            _emit(events, IO_WAKEUP, token)
            return 1
        if token_generation(token) != 0:
            return self._emit_socket(events, token, ready.events)
        if self.listeners[token].fd < 0:
            return 0
        if self.listeners[token].mode == MODE_REJECT:
            return self._reject_clients(<uint32_t>token, events)
        return self._accept_clients(<uint32_t>token, events, capacity)

    cdef int wait(self, io_event_t *events, int capacity, int64_t timeout_ms) noexcept nogil:
        cdef sys.epoll_event ready[EPOLL_BATCH]
        cdef int written = self._emit_closed(events, capacity // 2)
        cdef int n, i
        if written:
            timeout_ms = 0
        n = sys.epoll_wait(self.epfd, ready, min(<int>EPOLL_BATCH, (capacity - written) // 2), <int>min(timeout_ms, <int64_t>INT_MAX))
        if n < 0:
            return written if written else last_error()
        for i in range(n):
            # One event may become two; what finds no room is reported again, for the set is level-triggered.
            if capacity - written < 2:
                break
            written += self._emit_ready(&events[written], capacity - written, &ready[i])
        return written

    cdef void wakeup(self) noexcept nogil:
        cdef uint64_t one = 1
        sys.write(self.wakeup_fd, &one, sizeof(one))

    cdef size_t bytes_held(self) noexcept nogil:
        return self.n_slots * sizeof(epoll_slot_t) + self.reject_bytes


def accept_class_name(int error):
    """Return what an errno of accept means: "empty", "retry", "pause", "fatal" or "unknown"; for tests."""
    return ("ok", "empty", "retry", "pause", "fatal", "unknown")[<int>accept_class_of(error)]
