"""IocpListeners: AcceptEx, and everything that comes of it (see _iocp_accept.pxd).

Refusing while the port stays ours takes one of two ways:

- SO_PAUSE_ACCEPT: a listening socket that has it answers a SYN with RST and stays as it is otherwise. Who waits already is then
  accepted and reset, which ends, because nobody comes after. Windows has it.
- Where that option is unknown (Wine), the listening socket is closed, which resets who waits, and another is bound to the
  same address without listening on it. Between the two calls another program can take the port; then the loop hears
  EADDRINUSE when it wants to listen again, and tries until the port is free. On Windows this way would be worse: with
  SO_EXCLUSIVEADDRUSE nothing can be bound to a port while connections that came by it live.

After an accept has failed, its socket is closed with a reset: should a client have been given to it, that client learns of it. The
listening socket stays as it is. To make it anew would reset whoever waits in its backlog and can be served soon, and on Windows it
can't be bound again while connections that came by it live (SO_EXCLUSIVEADDRUSE).

Sources: the AcceptEx page; "Using SO_REUSEADDR and SO_EXCLUSIVEADDRUSE"; "SOL_SOCKET Socket Options" (SO_PAUSE_ACCEPT,
SO_UPDATE_ACCEPT_CONTEXT); Len Holgate on AcceptEx and phantom connections (2005).
"""
from libc.errno cimport ENOMEM
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from fastaccept._backend cimport (
    ACCEPT_FATAL, ACCEPT_RETRY, ACCEPT_UNKNOWN, IO_ACCEPTED, IO_ACCEPT_ENDED, IO_REJECTED, MODE_ACCEPT, MODE_QUEUE, MODE_REFUSE,
    MODE_REJECT, accept_class_t, accept_mode_t, handle_t, io_event_t,
)
from fastaccept._platform cimport win32 as sys
from fastaccept._platform.errno_map cimport accept_class_of, error_of
from fastaccept._platform.win32_calls cimport (
    ADDRESS_BYTES, PENDING, address_from_system, close_with_reset, get_int, set_int, set_nonblocking,
)

cdef enum:
    # Accepts posted on a listener: 4 at rest, so that a few clients at once meet one each; doubled while a turn uses up half of
    # them, up to 64, which is what the epoll backend takes in a turn.
    POSTED_MIN = 4
    POSTED_MAX = 64
    # While rejecting: clients that were admitted come first.
    POSTED_TO_REJECT = 8
    # Clients lost in a row before the listener is backed off from, as in the epoll backend.
    SKIPPED_MAX = 256
    RESET_MAX = 65536                # clients reset in one go when refusing begins: no backlog is longer
    DISCARD_BYTES = 16384
    DISCARD_ROUNDS = 16              # so much input of a rejected client is dropped before its socket is closed


cdef class IocpListeners:
    def __cinit__(self):
        cdef int i
        self.spare = sys.INVALID_SOCKET
        for i in range(IOCP_LISTENERS_MAX):
            self.listeners[i].handle = sys.INVALID_SOCKET

    def __dealloc__(self):
        self.free_memory()
        free(self.reject_message)

    # ---- listening sockets

    cdef int open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil:
        cdef iocp_listener_t *listener = &self.listeners[number]
        cdef iocp_listener_t before = listener[0]
        cdef sys.SOCKET s = <sys.SOCKET>handle
        cdef int code, length = sizeof(sys.sockaddr_storage)
        cdef sys.sockaddr_storage name
        if sys.getsockname(s, <sys.sockaddr *>&name, &length) != 0:
            return -error_of(sys.WSAGetLastError())
        code = set_nonblocking(s) or self.calls.listen(self.calls, s, backlog)
        code = code or self.calls.associate(self.calls, self.port, s, KEY_LISTENER)
        if code:
            return -error_of(code)
        memset(listener, 0, sizeof(iocp_listener_t))
        listener.handle = s
        # Accepts that were posted on the socket that had this number before may still come back.
        listener.epoch = before.epoch + 1
        listener.posted = before.posted
        listener.n_posted = before.n_posted
        listener.is_open = True
        listener.backlog = backlog
        listener.mode = MODE_QUEUE
        listener.target = POSTED_MIN
        listener.name = name
        listener.name_length = length
        listener.family = name.ss_family
        listener.is_exclusive = get_int(s, sys.SOL_SOCKET, sys.SO_EXCLUSIVEADDRUSE) != 0
        listener.reuses_address = get_int(s, sys.SOL_SOCKET, sys.SO_REUSEADDR) != 0
        listener.is_v6only = get_int(s, sys.IPPROTO_IPV6, sys.IPV6_V6ONLY) != 0
        listener.has_nodelay = get_int(s, sys.IPPROTO_TCP, sys.TCP_NODELAY) != 0
        self.n_listeners = max(self.n_listeners, number + 1)
        self._hold_spare()
        return 0

    cdef void _hold_spare(self) noexcept nogil:
        if self.spare == sys.INVALID_SOCKET:
            self.calls.open_socket(self.calls, sys.AF_INET, &self.spare)

    cdef int set_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil:
        cdef iocp_listener_t *listener = &self.listeners[number]
        cdef int code = 0
        if mode == MODE_REFUSE:
            # The mode comes first: a client that a posted accept takes meanwhile is reset, too.
            listener.mode = mode
            self._cancel(listener, 0)
            code = self._refuse(listener)
        else:
            if listener.mode == MODE_REFUSE or listener.handle == sys.INVALID_SOCKET:
                code = self._listen_again(listener)
            if code == 0:
                listener.mode = mode
                if mode == MODE_QUEUE:
                    self._cancel(listener, 0)
        if code == 0:
            listener.has_ended = False
            listener.skipped = 0
        return -error_of(code)

    cdef int _refuse(self, iocp_listener_t *listener) noexcept nogil:
        cdef sys.SOCKET s = listener.handle
        if s == sys.INVALID_SOCKET or listener.is_paused:
            return 0
        if set_int(s, sys.SOL_SOCKET, sys.SO_PAUSE_ACCEPT, 1) == 0:
            listener.is_paused = True
            self._reset_waiting(listener)
            return 0
        listener.epoch += 1          # what completes on the old socket from here on is reset
        listener.handle = sys.INVALID_SOCKET
        sys.closesocket(s)
        return self._bind_again(listener)

    cdef void _reset_waiting(self, iocp_listener_t *listener) noexcept nogil:
        cdef sys.SOCKET s
        for _ in range(RESET_MAX):
            self.made[0] += 1
            s = sys.accept(listener.handle, NULL, NULL)
            if s == sys.INVALID_SOCKET:
                break
            close_with_reset(s)

    cdef int _bind_again(self, iocp_listener_t *listener) noexcept nogil:
        """A new socket for the same address, as the one that we were given."""
        cdef sys.SOCKET s
        cdef int code = self.calls.open_socket(self.calls, listener.family, &s)
        if code:
            return code
        if listener.is_exclusive:
            set_int(s, sys.SOL_SOCKET, sys.SO_EXCLUSIVEADDRUSE, 1)
        elif listener.reuses_address:
            set_int(s, sys.SOL_SOCKET, sys.SO_REUSEADDR, 1)
        if listener.family == sys.AF_INET6:
            set_int(s, sys.IPPROTO_IPV6, sys.IPV6_V6ONLY, listener.is_v6only)
        if listener.has_nodelay:
            set_int(s, sys.IPPROTO_TCP, sys.TCP_NODELAY, 1)
        code = set_nonblocking(s)
        if code == 0 and sys.bind(s, <sys.sockaddr *>&listener.name, listener.name_length) != 0:
            code = sys.WSAGetLastError()
        code = code or self.calls.associate(self.calls, self.port, s, KEY_LISTENER)
        if code:
            sys.closesocket(s)
            return code
        listener.handle = s
        return 0

    cdef int _listen_again(self, iocp_listener_t *listener) noexcept nogil:
        cdef int code = 0
        if listener.is_paused:
            code = set_int(listener.handle, sys.SOL_SOCKET, sys.SO_PAUSE_ACCEPT, 0)
            listener.is_paused = code != 0
            return code
        if listener.handle == sys.INVALID_SOCKET:
            code = self._bind_again(listener)
        return code or self.calls.listen(self.calls, listener.handle, listener.backlog)

    cdef void close(self, uint32_t number) noexcept nogil:
        cdef iocp_listener_t *listener = &self.listeners[number]
        cdef sys.SOCKET s = listener.handle
        if not listener.is_open:
            return
        listener.is_open = False
        listener.epoch += 1
        listener.handle = sys.INVALID_SOCKET
        if s != sys.INVALID_SOCKET:
            sys.closesocket(s)       # the posted accepts come back cancelled

    cdef int set_reject_message(self, bytes message) except -1:
        cdef char *copy = <char *>malloc(len(message) + 1)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, <const char *>message, len(message))
        free(self.reject_message)
        self.reject_message = copy
        self.reject_bytes = len(message)
        return 0

    # ---- ops

    cdef accept_op_t *_op_new(self) noexcept nogil:
        cdef accept_op_t *op = self.free_ops
        if op != NULL:
            self.free_ops = op.next
            memset(op, 0, sizeof(accept_op_t))
        else:
            op = <accept_op_t *>calloc(1, sizeof(accept_op_t))
            self.n_ops += op != NULL
        return op

    cdef void _op_free(self, accept_op_t *op) noexcept nogil:
        op.next = self.free_ops
        self.free_ops = op

    cdef void _cancel(self, iocp_listener_t *listener, uint32_t keep) noexcept nogil:
        """Take posted accepts back until `keep` are left; they come back to completed(), some of them with a client."""
        cdef accept_op_t *op = listener.posted
        cdef uint32_t left = 0
        while op != NULL:
            if not op.is_cancelled and op.epoch == listener.epoch:
                left += 1
                if left > keep:
                    op.is_cancelled = True
                    sys.CancelIoEx(<sys.HANDLE>listener.handle, &op.overlapped)
            op = op.next

    cdef int _open_for_client(self, iocp_listener_t *listener, sys.SOCKET *made) noexcept nogil:
        """A socket for the next client. To reject one, the spare socket gives its place if need be."""
        cdef int code = self.calls.open_socket(self.calls, listener.family, made)
        if code == 0 or listener.mode != MODE_REJECT or self.spare == sys.INVALID_SOCKET:
            return code
        sys.closesocket(self.spare)
        self.spare = sys.INVALID_SOCKET
        return self.calls.open_socket(self.calls, listener.family, made)

    cdef int _post(self, uint32_t number) noexcept nogil:
        """Post one AcceptEx; 0 or the system's code."""
        cdef iocp_listener_t *listener = &self.listeners[number]
        cdef accept_op_t *op
        cdef sys.SOCKET s
        cdef int code = self._open_for_client(listener, &s)
        if code:
            return code
        op = self._op_new()
        if op == NULL:
            sys.closesocket(s)
            return 8                 # ERROR_NOT_ENOUGH_MEMORY
        op.accepted = s
        op.listener = number
        op.epoch = listener.epoch
        self.made[0] += 1
        code = self.calls.accept(self.calls, listener.handle, s, op.addresses, &op.overlapped)
        if code != 0 and code != PENDING:
            close_with_reset(s)
            self._op_free(op)
            return code
        # Also when it succeeded at once: a listening socket is not in skip mode, so its completion comes all the same.
        op.next = listener.posted
        if op.next != NULL:
            op.next.previous = op
        listener.posted = op
        listener.n_posted += 1
        self.n_posted += 1
        return 0

    # ---- before the wait

    cdef int prepare(self, io_event_t *events, int capacity) noexcept nogil:
        cdef int written = self._settle_held(events, capacity - <int>IOCP_LISTENERS_MAX)
        cdef iocp_listener_t *listener
        cdef uint32_t i
        for i in range(self.n_listeners):
            listener = &self.listeners[i]
            if not listener.is_open:
                continue
            # A failure was reported by the last wait. The loop has heard of it, and if it did not stop us, it wants to go on.
            listener.has_ended = False
            if listener.mode == MODE_ACCEPT or listener.mode == MODE_REJECT:
                written += self._top_up(i, &events[written])
        return written

    cdef int _top_up(self, uint32_t number, io_event_t *event) noexcept nogil:
        cdef iocp_listener_t *listener = &self.listeners[number]
        cdef int64_t wanted, others
        cdef int code
        if listener.mode == MODE_REJECT:
            wanted = POSTED_TO_REJECT
        else:
            if 2 * listener.taken >= listener.target:
                listener.target = <uint32_t>min(<uint64_t>POSTED_MAX, <uint64_t>2 * listener.target)
            elif listener.taken == 0 and listener.target > POSTED_MIN:
                listener.target -= 1
            others = <int64_t>(self.n_posted - listener.n_posted) + self.n_held
            wanted = min(<int64_t>listener.target, max(self.room[0] - others, <int64_t>(1 if self.room[0] > 0 else 0)))
            if <int64_t>listener.n_posted > max(self.room[0] - others, <int64_t>1):
                self._cancel(listener, <uint32_t>max(wanted, <int64_t>0))
        listener.taken = 0
        while <int64_t>listener.n_posted < wanted:
            code = self._post(number)
            if code:
                return self._ended(number, code, event)
        return 0

    cdef int _settle_held(self, io_event_t *events, int capacity) noexcept nogil:
        """Who was taken and had to wait: serve, tell or reset by what the listener's mode is now, oldest first."""
        cdef accept_op_t *op = self.held_first
        cdef accept_op_t *next
        cdef iocp_listener_t *listener
        cdef int written = 0
        self.held_first = self.held_last = NULL
        self.n_held = 0
        while op != NULL:
            next = op.next
            listener = &self.listeners[op.listener]
            if written == capacity:
                self._hold(op)
            else:
                written += self._dispose(op, &events[written])
            op = next
        return written

    cdef void _hold(self, accept_op_t *op) noexcept nogil:
        op.next = NULL
        if self.held_last == NULL:
            self.held_first = op
        else:
            self.held_last.next = op
        self.held_last = op
        self.n_held += 1

    cdef int _dispose(self, accept_op_t *op, io_event_t *event) noexcept nogil:
        """A client was taken: do with it what the listener's mode says. 0 or 1 event."""
        cdef iocp_listener_t *listener = &self.listeners[op.listener]
        if not listener.is_open or op.epoch != listener.epoch or listener.mode == MODE_REFUSE:
            close_with_reset(op.accepted)
            self.abandoned[0] += 1
            self._op_free(op)
            return 0
        if listener.mode == MODE_QUEUE or (listener.mode == MODE_ACCEPT and self.room[0] <= 0):
            self._hold(op)
            return 0
        event.token = op.listener
        event.result = 0
        event.error = 0
        event.handle = -1
        if listener.mode == MODE_REJECT:
            self._turn_away(op.accepted)
            self._hold_spare()
            event.kind = IO_REJECTED
            event.result = 1
        else:
            self.room[0] -= 1
            event.kind = IO_ACCEPTED
            event.handle = <handle_t>op.accepted
            event.peer = op.peer
        self._op_free(op)
        return 1

    # ---- completions

    cdef int completed(self, accept_op_t *op, io_event_t *event) noexcept nogil:
        cdef iocp_listener_t *listener = &self.listeners[op.listener]
        cdef bint is_current = listener.is_open and op.epoch == listener.epoch
        cdef sys.sockaddr *local = NULL
        cdef sys.sockaddr *remote = NULL
        cdef int n_local, n_remote, code
        cdef bint has_client
        cdef uint32_t number = op.listener
        if op.previous != NULL:
            op.previous.next = op.next
        else:
            listener.posted = op.next
        if op.next != NULL:
            op.next.previous = op.previous
        op.next = op.previous = NULL
        listener.n_posted -= 1
        self.n_posted -= 1
        code = self.calls.accepted(self.calls, listener.handle, &op.overlapped)
        has_client = code == 0
        if has_client and is_current:
            code = self.calls.update(self.calls, listener.handle, op.accepted) or set_nonblocking(op.accepted)
        if code or not is_current:
            close_with_reset(op.accepted)
            # A failure for want of something does not tell whether a client was there; one that was cancelled had none then.
            if accept_class_of(code) != ACCEPT_RETRY and (has_client or not op.is_cancelled):
                self.abandoned[0] += 1
            self._op_free(op)
            # One that was cancelled has nothing to say: whoever cancelled it knows.
            return self._ended(number, code, event) if is_current and not op.is_cancelled else 0
        self.calls.get_addresses(op.addresses, 0, ADDRESS_BYTES, ADDRESS_BYTES, &local, &n_local, &remote, &n_remote)
        address_from_system(remote, &op.peer)
        if listener.has_nodelay:
            set_int(op.accepted, sys.IPPROTO_TCP, sys.TCP_NODELAY, 1)
        listener.taken += 1
        listener.skipped = 0
        if self.n_held and listener.mode == MODE_ACCEPT:
            self._hold(op)           # not before those who came first
            return 0
        return self._dispose(op, event)

    cdef int _ended(self, uint32_t number, int code, io_event_t *event) noexcept nogil:
        """An accept failed. Reported as it is if it was for this client alone; else once until the loop has heard it."""
        cdef iocp_listener_t *listener = &self.listeners[number]
        cdef accept_class_t accept_class = accept_class_of(code)
        if accept_class == ACCEPT_RETRY:
            listener.skipped += 1
            if listener.skipped >= SKIPPED_MAX:
                accept_class = ACCEPT_UNKNOWN
        if accept_class != ACCEPT_RETRY:
            if listener.has_ended or listener.mode == MODE_QUEUE or listener.mode == MODE_REFUSE:
                return 0
            listener.has_ended = True
        event.kind = IO_ACCEPT_ENDED
        event.token = number
        event.result = 0
        event.handle = -1
        event.error = error_of(code)
        event.accept_class = accept_class
        return 1

    cdef void _turn_away(self, sys.SOCKET s) noexcept nogil:
        """Message, FIN, close. What the client has sent is read away first: closing on unread input is a reset (RFC 1122,
        4.2.2.13), and that could overtake the message."""
        cdef char discarded[DISCARD_BYTES]
        if self.reject_bytes:
            sys.send(s, self.reject_message, <int>self.reject_bytes, 0)
        sys.shutdown(s, sys.SD_SEND)
        for _ in range(DISCARD_ROUNDS):
            if sys.recv(s, discarded, DISCARD_BYTES, 0) <= 0:
                break
        sys.closesocket(s)

    # ---- the end

    cdef void shutdown(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.n_listeners):
            self.close(i)
        self._settle_held(NULL, 1)   # every listener is closed: they are reset, and no event is written
        if self.spare != sys.INVALID_SOCKET:
            sys.closesocket(self.spare)
            self.spare = sys.INVALID_SOCKET

    cdef void free_memory(self) noexcept nogil:
        cdef accept_op_t *op = self.free_ops
        while op != NULL:
            self.free_ops = op.next
            free(op)
            self.n_ops -= 1
            op = self.free_ops

    cdef size_t bytes_held(self) noexcept nogil:
        return self.n_ops * sizeof(accept_op_t) + self.reject_bytes
