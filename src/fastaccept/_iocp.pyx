"""IocpBackend: the seam over an I/O completion port.

How one works: a socket is associated with the port; an overlapped call on it returns at once, and when the system has done what
was asked for, the OVERLAPPED that the call was given comes out of the port. Until then it belongs to the system, also after
the socket was closed. So a slot is given back (IO_CLOSED) when the last one has come back, and slots never move.

- Reading is made readiness: a WSARecv of no bytes completes when something can be read, and needs no buffer meanwhile, so an
  idle connection locks no page. It is posted again by the wait after the one that reported it.
- A send is tried without an OVERLAPPED first, a piece at a time, for the system copies such a send whole, however long it is.
  Only what it does not take is sent overlapped, from the caller's memory, and no more than SEND_POSTED_MAX at once: then
  progress shows, and few pages are locked.
- FILE_SKIP_COMPLETION_PORT_ON_SUCCESS: what succeeds at once is dealt with at once and brings no completion. It holds only for
  sockets that are the system's own handles, which a layered provider may have changed; that is asked for once.
- The error of a completion is the system's. It is kept for recv(), because a socket tells it only once.

The table of calls (win32_calls) is where a test puts failures. Accepting is in _iocp_accept.

Sources: "I/O Completion Ports", WSARecv, WSASend, ConnectEx, CancelIoEx, SetFileCompletionNotificationModes at Microsoft Learn.
"""
from libc.errno cimport EBUSY, ENOMEM, ENOSYS, ENOTCONN
from libc.string cimport memset
from fastaccept._backend cimport (
    IO_CLOSED, IO_CONNECTED, IO_FAILED, IO_READABLE, IO_SENT, IO_WAKEUP, OPTION_KEEPALIVE, OPTION_NODELAY,
    TOKEN_WAKEUP, accept_mode_t, address_t, handle_t, io_emit, io_event_t,
)
from fastaccept._buffers cimport SLICES_MAX, io_slice_t
from fastaccept._iocp_accept cimport KEY_LISTENER, IocpListeners, accept_op_t
from fastaccept._iocp_slots cimport (
    IOCP_CHUNK, SLOT_CLOSING, SLOT_CONNECTED, SLOT_CONNECTING, SLOT_LISTED, SLOT_READ_POSTED, SLOT_SENT_OWED, SLOT_SKIPS,
    SLOT_WANTS_READ, SLOT_WATCHED, SLOT_WRITE_POSTED, iocp_slot_at, iocp_slot_find, iocp_slot_free, iocp_slot_open,
    iocp_slot_t, iocp_slots_bytes, iocp_slots_clear,
)
from fastaccept._slots cimport SLOT_NONE, token_index
from fastaccept._platform cimport win32 as sys
from fastaccept._platform.errno_map cimport error_of
from fastaccept._platform.win32_calls cimport (
    PENDING, address_from_system, address_to_system, calls_init, calls_load, close_with_reset, fill_buffers, overlapped_error,
    set_int, set_nonblocking, set_option, slices_length,
)

cdef enum:
    KEY_WAKEUP = 0
    SEND_TRIED_MAX = 65536           # bytes offered without an OVERLAPPED
    SEND_POSTED_MAX = 262144         # bytes of one overlapped send
    LAST_WAIT_MS = 5000              # at the end: how long OVERLAPPEDs that do not come back are waited for


cdef class IocpBackend(Backend):
    def __cinit__(self):
        cdef sys.LARGE_INTEGER frequency
        self.first_listed = SLOT_NONE
        sys.QueryPerformanceFrequency(&frequency)
        self.ticks_per_s = frequency.QuadPart
        calls_init(&self.calls)
        self.accepting = IocpListeners()
        self.accepting.calls = &self.calls           # of this object, which alone holds the other one
        self.accepting.room = &self.accept_room
        self.accepting.made = &self.accept_calls
        self.accepting.abandoned = &self.accepts_abandoned

    def __dealloc__(self):
        self.shutdown()

    # ---- life

    cdef int open(self) except -1:
        cdef sys.WSADATA found
        cdef int code = sys.WSAStartup(0x0202, &found)
        self.is_started = code == 0
        if code == 0:
            self.port = sys.CreateIoCompletionPort(sys.INVALID_HANDLE_VALUE, NULL, 0, 1)
            code = self._load() if self.port != NULL else <int>sys.GetLastError()
        if code:
            self.shutdown()
            raise OSError(0, "a completion port can't be set up", None, code)
        self.accepting.port = self.port
        return 0

    cdef int _load(self) noexcept nogil:
        """Find AcceptEx and its like, and whether sockets are the system's own handles."""
        cdef sys.WSAPROTOCOL_INFOW provider
        cdef int length = sizeof(provider)
        cdef sys.SOCKET s
        cdef int code = self.calls.open_socket(&self.calls, sys.AF_INET, &s)
        if code:
            return code
        code = calls_load(&self.calls, s)
        self.can_skip = (sys.getsockopt(s, sys.SOL_SOCKET, sys.SO_PROTOCOL_INFOW, <char *>&provider, &length) == 0
                         and provider.dwServiceFlags1 & sys.XP1_IFS_HANDLES != 0)
        sys.closesocket(s)
        return code

    cdef void shutdown(self) noexcept nogil:
        cdef sys.OVERLAPPED_ENTRY entries[IOCP_BATCH]
        cdef io_event_t ignored[2]
        cdef unsigned long n, i
        cdef uint32_t index
        cdef iocp_slot_t *slot
        cdef int64_t deadline_ms
        if self.port == NULL:
            self._end_winsock()
            return
        self.accepting.shutdown()
        for index in range(self.slots.n_chunks * IOCP_CHUNK):
            slot = iocp_slot_at(&self.slots, index)
            if slot != NULL and slot.token != 0 and not (slot.flags & SLOT_CLOSING):
                self.close_socket(slot.token, False)
        deadline_ms = self.now_ms() + LAST_WAIT_MS
        while self.n_posted + self.accepting.n_posted and self.now_ms() < deadline_ms:
            n = 0
            if sys.GetQueuedCompletionStatusEx(self.port, entries, IOCP_BATCH, &n, 100, False):
                for i in range(n):
                    self._emit_completed(&entries[i], ignored)
        sys.CloseHandle(self.port)
        self.port = NULL
        # What has not come back may still be written to by the system: lost memory is the lesser evil.
        iocp_slots_clear(&self.slots, self.n_posted != 0)
        self.first_listed = SLOT_NONE
        self.accepting.free_memory()
        self._end_winsock()

    cdef void _end_winsock(self) noexcept nogil:
        if self.is_started:
            self.is_started = False
            sys.WSACleanup()

    cdef int64_t now_us(self) noexcept nogil:
        cdef sys.LARGE_INTEGER count
        sys.QueryPerformanceCounter(&count)
        # Split, because a million times the count overflows after some days of uptime.
        return count.QuadPart // self.ticks_per_s * 1000000 + count.QuadPart % self.ticks_per_s * 1000000 // self.ticks_per_s

    # ---- listeners

    cdef int listener_open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil:
        return self.accepting.open(number, handle, backlog)

    cdef int listener_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil:
        return self.accepting.set_mode(number, mode)

    cdef void listener_close(self, uint32_t number) noexcept nogil:
        self.accepting.close(number)

    cdef int set_reject_message(self, bytes message) except -1:
        return self.accepting.set_reject_message(message)

    # ---- connections

    cdef int _associate(self, iocp_slot_t *slot) noexcept nogil:
        cdef int code = self.calls.associate(&self.calls, self.port, slot.handle, <sys.ULONG_PTR>slot)
        if code == 0 and self.can_skip and sys.SetFileCompletionNotificationModes(
                <sys.HANDLE>slot.handle, sys.FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | sys.FILE_SKIP_SET_EVENT_ON_HANDLE):
            slot.flags |= SLOT_SKIPS
        return code

    cdef void _list(self, iocp_slot_t *slot) noexcept nogil:
        """Have the next wait see to it."""
        if not (slot.flags & SLOT_LISTED):
            slot.flags |= SLOT_LISTED
            slot.next_listed = self.first_listed
            self.first_listed = token_index(slot.token)

    cdef int attach(self, uint64_t token, handle_t handle) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_open(&self.slots, token)
        cdef int code
        if slot == NULL:
            return -ENOMEM
        slot.handle = <sys.SOCKET>handle
        code = self._associate(slot)
        if code:
            iocp_slot_free(&self.slots, slot)
            return -error_of(code)
        self._watch(slot)
        return 0

    cdef void _watch(self, iocp_slot_t *slot) noexcept nogil:
        """Have a read posted although nobody reads: it is how a reset shows."""
        slot.flags |= SLOT_WATCHED
        if not (slot.flags & SLOT_READ_POSTED):
            self._list(slot)

    cdef void discard(self, handle_t handle) noexcept nogil:
        close_with_reset(<sys.SOCKET>handle)

    cdef int connect(self, uint64_t token, const address_t *peer, const address_t *source) noexcept nogil:
        cdef sys.sockaddr_storage to, origin
        cdef int n_to = address_to_system(peer, &to)
        cdef int n_origin = n_to
        cdef int code
        cdef iocp_slot_t *slot = iocp_slot_open(&self.slots, token)
        if slot == NULL:
            return -ENOMEM
        if source != NULL:
            n_origin = address_to_system(source, &origin)
        else:
            memset(&origin, 0, sizeof(origin))       # ConnectEx wants a bound socket: any address, any port
            origin.ss_family = to.ss_family
        code = self._begin_connect(slot, &to, n_to, &origin, n_origin)
        if code:
            if slot.handle != sys.INVALID_SOCKET:
                sys.closesocket(slot.handle)
            iocp_slot_free(&self.slots, slot)
        return -error_of(code)

    cdef int _begin_connect(self, iocp_slot_t *slot, const void *peer, int n_peer, const void *source, int n_source) noexcept nogil:
        cdef int code = self.calls.open_socket(&self.calls, (<const sys.sockaddr *>peer).sa_family, &slot.handle)
        code = code or set_nonblocking(slot.handle)
        if code == 0 and sys.bind(slot.handle, <const sys.sockaddr *>source, n_source) != 0:
            code = sys.WSAGetLastError()
        code = code or self._associate(slot)
        if code:
            return code
        code = self.calls.connect(&self.calls, slot.handle, <const sys.sockaddr *>peer, n_peer, &slot.writing)
        if code != 0 and code != PENDING:
            return code
        slot.flags |= SLOT_CONNECTING
        if code == 0 and slot.flags & SLOT_SKIPS:
            slot.flags |= SLOT_CONNECTED
            self._list(slot)
        else:
            slot.flags |= SLOT_WRITE_POSTED
            self.n_posted += 1
        return 0

    cdef int read_start(self, uint64_t token) noexcept nogil:
        """Only noted: the next wait posts the read, or finds that it is stopped again."""
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        if slot == NULL:
            return -ENOTCONN
        slot.flags |= SLOT_WANTS_READ
        if not (slot.flags & SLOT_READ_POSTED):
            self._list(slot)
        return 0

    cdef void read_stop(self, uint64_t token) noexcept nogil:
        """A read that is posted stays: cancelling it would cost more than it does."""
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        if slot != NULL:
            slot.flags &= ~<unsigned int>SLOT_WANTS_READ
            self._watch(slot)

    cdef int _post_read(self, iocp_slot_t *slot) noexcept nogil:
        """1: something can be read, or an error waits for recv(). 0: its completion will come."""
        cdef sys.WSABUF nothing
        cdef sys.DWORD taken
        cdef int code
        nothing.buf = NULL
        nothing.len = 0
        code = self.calls.receive(&self.calls, slot.handle, &nothing, &slot.reading, &taken)
        if code == 0 and slot.flags & SLOT_SKIPS:
            return 1
        if code != 0 and code != PENDING:
            slot.read_error = error_of(code)
            return 1
        slot.flags |= SLOT_READ_POSTED
        self.n_posted += 1
        return 0

    cdef int64_t recv(self, uint64_t token, char *buffer, size_t capacity) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        cdef int n
        if slot == NULL:
            return -ENOTCONN
        if slot.read_error:
            return -slot.read_error
        n = sys.recv(slot.handle, buffer, <int>min(capacity, <size_t>0x7FFFFFFF), 0)
        if n == 0:
            return -self._reset_behind_end(slot)
        return n if n > 0 else -error_of(sys.WSAGetLastError())

    cdef int _reset_behind_end(self, iocp_slot_t *slot) noexcept nogil:
        """An end may be a reset that was told to nobody (Wine). Sending nothing tells: it fails if the connection is no more."""
        cdef int code
        if sys.send(slot.handle, NULL, 0, 0) == 0:
            return 0
        code = sys.WSAGetLastError()
        if code == sys.WSAECONNRESET or code == sys.WSAECONNABORTED:
            slot.read_error = error_of(code)
        return slot.read_error

    cdef int64_t send(self, uint64_t token, const io_slice_t *slices, int n) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        cdef sys.WSABUF buffers[SLICES_MAX]
        cdef sys.DWORD taken
        cdef size_t offered = slices_length(slices, n), sent = 0, piece
        cdef int64_t more
        cdef int code
        if slot == NULL:
            return -ENOTCONN
        if slot.flags & SLOT_WRITE_POSTED:
            return -EBUSY            # the loop waits for IO_SENT, or IO_CONNECTED, first
        while sent < offered:
            piece = min(offered - sent, <size_t>SEND_TRIED_MAX)
            taken = 0
            code = self.calls.send(&self.calls, slot.handle, buffers, fill_buffers(buffers, slices, n, sent, piece), NULL, &taken)
            if code != 0 and code != sys.WSAEWOULDBLOCK:
                return -error_of(code)
            sent += taken if code == 0 else 0
            if code != 0 or taken < piece:
                more = self._send_overlapped(slot, slices, n, sent)
                return <int64_t>sent + more if more >= 0 else more
        return sent

    cdef int64_t _send_overlapped(self, iocp_slot_t *slot, const io_slice_t *slices, int n, size_t skip) noexcept nogil:
        """What the system did not take at once. 0: IO_SENT will come. Else the bytes taken after all, in which case nothing is
        under way although there may be more; that is told by an IO_SENT of 0."""
        cdef sys.WSABUF buffers[SLICES_MAX]
        cdef sys.DWORD taken = 0
        cdef int used = fill_buffers(buffers, slices, n, skip, SEND_POSTED_MAX)
        cdef int code = self.calls.send(&self.calls, slot.handle, buffers, used, &slot.writing, &taken)
        if code != 0 and code != PENDING:
            return -error_of(code)
        if code == 0 and slot.flags & SLOT_SKIPS:
            if skip + taken < slices_length(slices, n):
                slot.flags |= SLOT_SENT_OWED
                self._list(slot)
            return taken
        slot.flags |= SLOT_WRITE_POSTED
        self.n_posted += 1
        return 0

    cdef int shutdown_write(self, uint64_t token) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        if slot == NULL:
            return -ENOTCONN
        return 0 if sys.shutdown(slot.handle, sys.SD_SEND) == 0 else -error_of(sys.WSAGetLastError())

    cdef int64_t unsent(self, uint64_t token) noexcept nogil:
        """By the state of the connection: our FIN follows all data, so all has arrived when that is acknowledged. The bytes in
        flight, which the same call tells, leave out what a closed window holds back. So before the FIN there is always something."""
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        cdef int state = self.calls.tcp_state(&self.calls, slot.handle) if slot != NULL else -1
        if state < 0:
            return -1
        return 0 if state == sys.TCPSTATE_FIN_WAIT_2 or state == sys.TCPSTATE_TIME_WAIT else 1

    cdef int local_address(self, uint64_t token, address_t *address) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        cdef sys.sockaddr_storage storage
        cdef int length = sizeof(storage)
        if slot == NULL:
            return -ENOTCONN
        if sys.getsockname(slot.handle, <sys.sockaddr *>&storage, &length) != 0:
            return -error_of(sys.WSAGetLastError())
        address_from_system(<sys.sockaddr *>&storage, address)
        return 0

    cdef int64_t handle_of(self, uint64_t token) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        return <int64_t>slot.handle if slot != NULL else -1

    cdef int set_option(self, uint64_t token, int option, int value) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        if slot == NULL:
            return -ENOTCONN
        if option == OPTION_NODELAY:
            return -error_of(set_int(slot.handle, sys.IPPROTO_TCP, sys.TCP_NODELAY, value))
        if option == OPTION_KEEPALIVE:
            return -error_of(set_int(slot.handle, sys.SOL_SOCKET, sys.SO_KEEPALIVE, value))
        return -ENOSYS

    cdef void close_socket(self, uint64_t token, bint reset) noexcept nogil:
        cdef iocp_slot_t *slot = iocp_slot_find(&self.slots, token)
        if slot == NULL:
            return
        slot.flags |= SLOT_CLOSING
        if slot.flags & (SLOT_READ_POSTED | SLOT_WRITE_POSTED):
            sys.CancelIoEx(<sys.HANDLE>slot.handle, NULL)
        if reset:
            close_with_reset(slot.handle)
        else:
            sys.closesocket(slot.handle)
        if not (slot.flags & (SLOT_READ_POSTED | SLOT_WRITE_POSTED)):
            self._list(slot)

    # ---- the turn

    cdef int _emit_listed(self, io_event_t *events, int capacity) noexcept nogil:
        cdef int written = 0
        cdef uint32_t index = self.first_listed
        cdef iocp_slot_t *slot
        self.first_listed = SLOT_NONE            # a slot that was seen to may list itself for the next wait
        while index != SLOT_NONE:
            slot = iocp_slot_at(&self.slots, index)
            index = slot.next_listed
            slot.flags &= ~<unsigned int>SLOT_LISTED
            if written < capacity:
                written += self._see_to(slot, &events[written])
            else:
                self._list(slot)
        return written

    cdef int _see_to(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil:
        """0 or 1 event."""
        if slot.flags & SLOT_CLOSING:
            if slot.flags & (SLOT_READ_POSTED | SLOT_WRITE_POSTED):
                return 0             # whose completion ends it
            io_emit(event, IO_CLOSED, slot.token)
            iocp_slot_free(&self.slots, slot)
            return 1
        if slot.flags & SLOT_CONNECTED:
            slot.flags &= ~<unsigned int>SLOT_CONNECTED
            return self._emit_connected(slot, 0, event)
        if slot.flags & SLOT_SENT_OWED:
            slot.flags &= ~<unsigned int>SLOT_SENT_OWED
            io_emit(event, IO_SENT, slot.token)
            if slot.flags & SLOT_WANTS_READ and not (slot.flags & SLOT_READ_POSTED):
                self._list(slot)
            return 1
        if not (slot.flags & (SLOT_WANTS_READ | SLOT_WATCHED)) or slot.flags & SLOT_READ_POSTED:
            return 0
        slot.flags &= ~<unsigned int>SLOT_WATCHED
        if slot.read_error == 0 and self._post_read(slot) == 0:
            return 0
        return self._emit_readable(slot, event)

    cdef int _emit_completed(self, const sys.OVERLAPPED_ENTRY *entry, io_event_t *events) noexcept nogil:
        """None, one or two events."""
        cdef iocp_slot_t *slot
        cdef bint is_read
        if entry.lpCompletionKey == KEY_WAKEUP:
            io_emit(events, IO_WAKEUP, TOKEN_WAKEUP)
            return 1
        if entry.lpCompletionKey == KEY_LISTENER:
            return self.accepting.completed(<accept_op_t *>entry.lpOverlapped, events)
        slot = <iocp_slot_t *>entry.lpCompletionKey
        is_read = entry.lpOverlapped == &slot.reading
        slot.flags &= ~<unsigned int>(SLOT_READ_POSTED if is_read else SLOT_WRITE_POSTED)
        self.n_posted -= 1
        if slot.flags & SLOT_CLOSING:
            if slot.flags & (SLOT_READ_POSTED | SLOT_WRITE_POSTED | SLOT_LISTED):
                return 0             # the last of these ends it
            io_emit(events, IO_CLOSED, slot.token)
            iocp_slot_free(&self.slots, slot)
            return 1
        if is_read:
            return self._emit_read(slot, events)
        if slot.flags & SLOT_CONNECTING:
            return self._emit_connected(slot, overlapped_error(slot.handle, &slot.writing), events)
        return self._emit_written(slot, entry.dwNumberOfBytesTransferred, events)

    cdef int _emit_read(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil:
        slot.read_error = error_of(overlapped_error(slot.handle, &slot.reading))
        return self._emit_readable(slot, event)

    cdef int _emit_readable(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil:
        """The zero-byte read has ended. One that nobody wanted is posted again by read_start(), or by another pause."""
        if slot.flags & SLOT_WANTS_READ:
            io_emit(event, IO_READABLE, slot.token)
            self._list(slot)
            return 1
        if slot.read_error == 0 and self._reset_behind_end(slot) == 0:
            return 0
        io_emit(event, IO_FAILED, slot.token).error = slot.read_error
        return 1

    cdef int _emit_written(self, iocp_slot_t *slot, int64_t n, io_event_t *events) noexcept nogil:
        cdef int error = error_of(overlapped_error(slot.handle, &slot.writing))
        cdef int written = 0
        if n > 0 or error == 0:
            io_emit(events, IO_SENT, slot.token).result = n
            written = 1
        if error:
            io_emit(&events[written], IO_FAILED, slot.token).error = error
            written += 1
        return written

    cdef int _emit_connected(self, iocp_slot_t *slot, int code, io_event_t *event) noexcept nogil:
        slot.flags &= ~<unsigned int>SLOT_CONNECTING
        if code == 0:                # without it shutdown() and getpeername() do not know that it is connected
            code = set_option(slot.handle, sys.SOL_SOCKET, sys.SO_UPDATE_CONNECT_CONTEXT, NULL, 0)
        io_emit(event, IO_CONNECTED, slot.token).result = -error_of(code)
        return 1

    cdef int wait(self, io_event_t *events, int capacity, int64_t timeout_ms) noexcept nogil:
        cdef sys.OVERLAPPED_ENTRY entries[IOCP_BATCH]
        cdef sys.DWORD wait_ms
        cdef unsigned long n = 0, i, room
        cdef int written = self.accepting.prepare(events, capacity // 4)
        written += self._emit_listed(&events[written], capacity // 2 - written)
        if written or self.first_listed != SLOT_NONE:
            timeout_ms = 0
        wait_ms = sys.INFINITE if timeout_ms < 0 else <sys.DWORD>min(timeout_ms, <int64_t>0x7FFFFFFF)
        # What was taken out of the port can't be put back, and may be two events.
        room = <unsigned long>min((capacity - written) // 2, <int>IOCP_BATCH)
        if not sys.GetQueuedCompletionStatusEx(self.port, entries, room, &n, wait_ms, False):
            return written if written or sys.GetLastError() == sys.WAIT_TIMEOUT else -error_of(<int>sys.GetLastError())
        for i in range(n):
            written += self._emit_completed(&entries[i], &events[written])
        return written

    cdef void wakeup(self) noexcept nogil:
        sys.PostQueuedCompletionStatus(self.port, 0, KEY_WAKEUP, NULL)

    cdef size_t bytes_held(self) noexcept nogil:
        return iocp_slots_bytes(&self.slots) + self.accepting.bytes_held()
