"""EpollListeners: the listening half of the seam over epoll(7): modes of a listener, accepting, rejecting, the reserve.

A listener that does not accept is out of the epoll set: watching for nothing would still report EPOLLHUP after the shutdown() that
makes it refuse. Sources: accept(2), listen(2), tcp(7), unix(7), getrlimit(2); for shutdown() on a listening socket inet_shutdown()
in net/ipv4/af_inet.c, which stops listening and keeps the port.
"""
from libc.errno cimport EADDRINUSE, EAGAIN, EINVAL, EMFILE, ENFILE, ENOSYS, errno
from libc.limits cimport INT_MAX
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from fastaccept._backend cimport (
    ACCEPT_EMPTY, ACCEPT_RETRY, ACCEPT_UNKNOWN, IO_ACCEPTED, IO_ACCEPT_ENDED, IO_REJECTED, MODE_ACCEPT, MODE_QUEUE, MODE_REFUSE,
    MODE_REJECT, Backend, accept_class_t, accept_mode_t, handle_t, io_emit, io_event_t,
)
from fastaccept._platform cimport linux as sys
from fastaccept._platform.accept_errno cimport accept_class_of
from fastaccept._platform.linux_sockets cimport address_from_system, get_int, last_error, set_int

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


cdef class EpollListeners(Backend):
    def __cinit__(self):
        cdef int i
        self.epfd = self.spare_fd = -1
        for i in range(EPOLL_LISTENERS_MAX):
            self.listeners[i].fd = -1

    def __dealloc__(self):
        free(self.reject_message)

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
        """The soft limit may be changed from outside at any time (prlimit), so it is read again in each
        millisecond in which there is something to accept."""
        cdef sys.rlimit limit
        self.ceiling = INT_MAX
        self.ceiling_at_ms = self.now_ms()
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

    cdef void _set_burst(self, epoll_listener_t *listener, int batch) noexcept nogil:
        """The kernel makes a socket, an inode and a file before it looks into the queue (do_accept() in net/socket.c), so an accept4
        that finds nobody costs twenty times as much as asking epoll again. The first wait of a run takes one client."""
        listener.burst = max(1, min(4 * listener.burst, batch)) if listener.seen_at_wait + 1 == self.n_waits else 1
        listener.seen_at_wait = self.n_waits

    cdef int _accept_clients(self, uint32_t number, io_event_t *events, int capacity) noexcept nogil:
        """Take clients until nobody waits, or the room or the batch is used up. Returns the events written."""
        cdef epoll_listener_t *listener = &self.listeners[number]
        cdef sys.sockaddr_storage peer
        cdef sys.socklen_t length
        cdef int written = 0, fd
        self._set_burst(listener, ACCEPT_BATCH)
        if self.reserve and self.now_ms() != self.ceiling_at_ms:
            self._read_ceiling()
        if self._is_at_ceiling(listener):
            self._emit_accept_ended(io_emit(events, IO_ACCEPT_ENDED, number), listener, EMFILE)
            return 1
        while written < min(capacity, listener.burst) and self.accept_room > 0:
            length = sizeof(peer)
            peer.ss_family = 0
            self.accept_calls += 1
            fd = sys.accept4(listener.fd, <sys.sockaddr *>&peer, &length, sys.SOCK_NONBLOCK | sys.SOCK_CLOEXEC)
            if fd < 0 and errno == EAGAIN:
                listener.skipped = 0
                listener.burst = 0
                break
            written += 1
            if fd < 0:
                if self._emit_accept_ended(io_emit(&events[written - 1], IO_ACCEPT_ENDED, number), listener, errno) != ACCEPT_RETRY:
                    break
                continue
            listener.skipped = 0
            self.accept_room -= 1
            io_emit(&events[written - 1], IO_ACCEPTED, number).handle = fd
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
        self._set_burst(listener, REJECT_BATCH)
        for _ in range(listener.burst):
            fd = self._accept_to_reject(listener)
            if fd < 0:
                error = -fd
                if accept_class_of(error) == ACCEPT_RETRY:
                    continue
                listener.burst = 0
                break
            self._turn_away(fd)
            rejected += 1
        self._hold_spare()
        if rejected:
            io_emit(events, IO_REJECTED, number).result = rejected
            written = 1
        if error and accept_class_of(error) != ACCEPT_EMPTY:
            self._emit_accept_ended(io_emit(&events[written], IO_ACCEPT_ENDED, number), listener, error)
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
        4.2.2.13), and that could overtake the message. The FIN goes before the reading, by a call of its own: left to close(2), one
        in a hundred clients that send as soon as they are connected was reset on loopback, with it none."""
        cdef char discarded[DISCARD_BYTES]
        if self.reject_bytes:        # in one segment with the FIN
            sys.send(fd, self.reject_message, self.reject_bytes, sys.MSG_NOSIGNAL | sys.MSG_DONTWAIT | sys.MSG_MORE)
        sys.shutdown(fd, sys.SHUT_WR)
        for _ in range(DISCARD_ROUNDS):
            if sys.recv(fd, discarded, DISCARD_BYTES, sys.MSG_DONTWAIT) <= 0:
                break
        sys.close(fd)


def accept_class_name(int error):
    """Return what an errno of accept means: "empty", "retry", "pause", "fatal" or "unknown"; for tests."""
    return ("ok", "empty", "retry", "pause", "fatal", "unknown")[<int>accept_class_of(error)]
