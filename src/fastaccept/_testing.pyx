"""ScriptedBackend: a system played by a test, behind the seam. No sockets and no waiting: clients arrive when the test says so,
accept fails with the errno that the test says, and the clock stands still until the test moves it.

It keeps the contract of _backend.pxd by itself and watches that the loop keeps it too: `violations` lists every call that must not
have been made (accepting while paused, closing twice, a token that is not attached).
"""
import collections
import random

from libc.errno cimport EAGAIN, EMFILE, ENOTCONN
from libc.string cimport memcpy, memset
from fastaccept._backend cimport (
    ACCEPT_FATAL, ACCEPT_PAUSE, ACCEPT_RETRY, ACCEPT_UNKNOWN, FAMILY_INET, IO_ACCEPTED, IO_ACCEPT_ENDED, IO_CLOSED, IO_CONNECTED,
    IO_READABLE, IO_REJECTED, IO_SENT, IO_WAKEUP, MODE_ACCEPT, MODE_QUEUE, MODE_REFUSE, MODE_REJECT, TOKEN_WAKEUP,
    Backend, accept_mode_t, address_t, handle_t, io_event_t,
)
from fastaccept._buffers cimport io_slice_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastaccept.errors import loop_errno

_MODES = {MODE_ACCEPT: "accept", MODE_QUEUE: "queue", MODE_REFUSE: "refuse", MODE_REJECT: "reject"}
_CLASSES = {"retry": ACCEPT_RETRY, "pause": ACCEPT_PAUSE, "fatal": ACCEPT_FATAL, "unknown": ACCEPT_UNKNOWN}


class Peer:
    """The other end of a connection.

    Attributes:
        inbox: what recv() gives, one item a call: bytes, b"" for the end, or an int errno.
        outbox: what the server has sent. room: bytes that send() takes before it is short; None = any.
        unsent: what unsent() answers: bytes not acknowledged, -1 = unknown.
        closed: None, "fin" or "rst".
    """

    def __init__(self, handle):
        self.handle = handle
        self.inbox = collections.deque()
        self.outbox = bytearray()
        self.room = None
        self.unsent = 0
        self.reading = False
        self.sending = False
        self.shut = False
        self.closed = None


cdef class ScriptedBackend(Backend):
    """See the module.

    Args:
        seed: int: the order of events within a batch is shuffled by it; None = in the order of arrival.
        capacity: int or None: handles that may be open at once; beyond it accept fails with EMFILE.
    Attributes:
        clock_ms: int, the time. clock_us: int, microseconds besides, for now_us() alone: look_us (10) more with each call.
        waits: list of the timeouts that the loop asked for. before_waits: deque of calls, or None, one made by each wait.
        script: deque of (errno, class) or None for an accept that goes well; used up by accepts, of any listener.
        queues: by listener, how many clients wait. modes: by listener, the latest mode. mode_changes: list of (listener, mode).
        peers: by handle, Peer. by_token: by token, Peer. closed: Counter of handles. violations: list of str.
    """
    cdef public object clock_ms, clock_us, waits, script, queues, modes, mode_changes, peers, by_token, closed, violations, capacity
    cdef public object look_us, mode_errors, connect_results, rejected, open_handles, before_waits
    cdef object random, closing, connecting, woken
    cdef int64_t next_handle

    def __cinit__(self, seed=None, capacity=None):
        self.clock_ms = 1000
        self.clock_us = 0
        self.look_us = 10
        self.waits = collections.deque(maxlen=100)
        self.before_waits = collections.deque()
        self.script = collections.deque()
        self.queues = {}
        self.modes = {}
        self.mode_changes = collections.deque(maxlen=1000)
        self.mode_errors = collections.deque()
        self.connect_results = collections.deque()
        self.peers = {}
        self.by_token = {}
        self.closed = collections.Counter()
        self.violations = []
        self.capacity = capacity
        self.rejected = 0
        self.open_handles = 0
        self.random = None if seed is None else random.Random(seed)
        self.closing = collections.deque()
        self.connecting = collections.deque()
        self.woken = False
        self.next_handle = 100

    # ---- the test's side

    def arrive(self, int listener=0, int n=1):
        """n clients connect to a listener; those of a refusing one are turned away. Returns how many now wait."""
        if self.modes[listener] != "refuse":
            self.queues[listener] += n
        return self.queues[listener]

    def advance(self, int64_t ms):
        """Time passes."""
        self.clock_ms += ms

    def peer(self, index=-1):
        """An open connection's peer, by order of accepting."""
        return [peer for peer in self.peers.values() if peer.closed is None][index]

    # ---- the loop's side

    cdef int open(self) except -1:
        return 0

    cdef int64_t now_us(self) noexcept nogil:
        with gil:
            self.clock_us += self.look_us
            return self.clock_ms * 1000 + self.clock_us

    cdef int64_t now_ms(self) noexcept nogil:
        with gil:
            return self.clock_ms

    cdef int listener_open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil:
        with gil:
            self.queues[number] = 0
            self.modes[number] = "queue"
        return 0

    cdef int listener_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil:
        with gil:
            if self.mode_errors and self.mode_errors[0]:
                return -self.mode_errors.popleft()
            if self.mode_errors:
                self.mode_errors.popleft()
            self.modes[number] = _MODES[mode]
            self.mode_changes.append((number, _MODES[mode]))
            if mode == MODE_REFUSE:
                self.queues[number] = 0
        return 0

    cdef void listener_close(self, uint32_t number) noexcept nogil:
        with gil:
            self.modes.pop(number, None)
            self.queues.pop(number, None)

    cdef int listener_queue(self, uint32_t number, int64_t *queued, int64_t *backlog) noexcept nogil:
        with gil:
            queued[0] = self.queues.get(number, 0)
            backlog[0] = 128
        return 0

    cdef int attach(self, uint64_t token, handle_t handle) noexcept nogil:
        with gil:
            if token in self.by_token:
                self.violations.append(f"token {token} attached twice")
            self.by_token[token] = self.peers[handle]
        return 0

    cdef void discard(self, handle_t handle) noexcept nogil:
        with gil:
            self._close(self.peers[handle], "rst")

    def _close(self, peer, how):
        if peer.closed is not None:
            self.violations.append(f"handle {peer.handle} closed twice")
            return
        peer.closed = how
        self.closed[peer.handle] += 1
        self.open_handles -= 1
        del self.peers[peer.handle]

    def _new_peer(self):
        self.next_handle += 1
        self.open_handles += 1
        peer = self.peers[self.next_handle] = Peer(self.next_handle)
        return peer

    cdef int connect(self, uint64_t token, const address_t *peer, const address_t *source) noexcept nogil:
        with gil:
            if self.capacity is not None and self.open_handles >= self.capacity:
                return -EMFILE
            self.by_token[token] = self._new_peer()
            self.connecting.append((token, self.connect_results.popleft() if self.connect_results else 0))
        return 0

    cdef int read_start(self, uint64_t token) noexcept nogil:
        with gil:
            if token not in self.by_token:
                self.violations.append(f"read_start of token {token}")
                return -ENOTCONN
            self.by_token[token].reading = True
        return 0

    cdef void read_stop(self, uint64_t token) noexcept nogil:
        with gil:
            self.by_token[token].reading = False

    cdef int64_t recv(self, uint64_t token, char *buffer, size_t capacity) noexcept nogil:
        with gil:
            peer = self.by_token.get(token)
            if peer is None:
                self.violations.append(f"recv of token {token}")
                return -ENOTCONN
            if not peer.inbox:
                return -EAGAIN
            item = peer.inbox.popleft()
            if isinstance(item, int):
                return -loop_errno(item)
            if len(item) > capacity:
                peer.inbox.appendleft(item[capacity:])
                item = item[:capacity]
            if not item:
                peer.inbox.appendleft(b"")   # the end stays the end
            memcpy(buffer, <const char *>item, len(item))
            return len(item)

    cdef int64_t send(self, uint64_t token, const io_slice_t *slices, int n) noexcept nogil:
        cdef int i
        with gil:
            peer = self.by_token.get(token)
            if peer is None or peer.sending:
                self.violations.append(f"send of token {token}")
                return -ENOTCONN
            data = b"".join([slices[i].base[:slices[i].length] for i in range(n)])
            if isinstance(peer.room, int) and peer.room < 0:
                return -loop_errno(-peer.room)
            taken = data if peer.room is None else data[:peer.room]
            if peer.room is not None:
                peer.room -= len(taken)
            peer.outbox += taken
            peer.sending = len(taken) < len(data)
            return len(taken)

    cdef int shutdown_write(self, uint64_t token) noexcept nogil:
        with gil:
            self.by_token[token].shut = True
        return 0

    cdef int64_t unsent(self, uint64_t token) noexcept nogil:
        with gil:
            return self.by_token[token].unsent

    cdef void close_socket(self, uint64_t token, bint reset) noexcept nogil:
        with gil:
            peer = self.by_token.pop(token, None)
            if peer is None:
                self.violations.append(f"close of token {token}")
                return
            self._close(peer, "rst" if reset else "fin")
            self.closing.append(token)

    cdef void wakeup(self) noexcept nogil:
        with gil:
            self.woken = True

    cdef int wait(self, io_event_t *events, int capacity, int64_t timeout_ms) noexcept nogil:
        with gil:
            self.waits.append(timeout_ms)
            call = self.before_waits.popleft() if self.before_waits else None
            if call is not None:
                call()
            found = self._happened(capacity)
            for i, (kind, token, values) in enumerate(found):
                memset(&events[i], 0, sizeof(io_event_t))
                events[i].kind = kind
                events[i].token = token
                events[i].handle = values.get("handle", -1)
                events[i].result = values.get("result", 0)
                events[i].error = values.get("error", 0)
                events[i].accept_class = values.get("accept_class", 0)
                events[i].peer.family = FAMILY_INET
            return len(found)

    def _happened(self, int capacity):
        """What a system would report now: at most so many events, closed slots first."""
        found = []
        while self.closing and len(found) < capacity:
            found.append((IO_CLOSED, self.closing.popleft(), {}))
        rest = []
        if self.woken:
            self.woken = False
            rest.append((IO_WAKEUP, <uint64_t><uint32_t>TOKEN_WAKEUP, {}))
        while self.connecting:
            token, error = self.connecting.popleft()
            if token in self.by_token:
                rest.append((IO_CONNECTED, token, {"result": -loop_errno(error)}))
        for number in sorted(self.modes):
            rest += self._accept(number, capacity - len(found) - len(rest))
        for token, peer in self.by_token.items():
            if len(found) + len(rest) + 2 > capacity:
                break
            if peer.sending and (peer.room is None or peer.room != 0):
                peer.sending = False
                rest.append((IO_SENT, token, {}))
            if peer.reading and peer.inbox:
                rest.append((IO_READABLE, token, {}))
        found += rest[: capacity - len(found)]
        if self.random is not None:
            self.random.shuffle(found)
        return found

    def _accept(self, number, capacity):
        """The accepts of one listener in one wait."""
        mode = self.modes[number]
        found = []
        if mode == "reject":
            rejected = min(16, self.queues[number])
            self.queues[number] -= rejected
            self.rejected += rejected
            return [(IO_REJECTED, number, {"result": rejected})] if rejected else []
        while mode == "accept" and self.queues[number] and self.accept_room > 0 and len(found) < min(64, capacity):
            self.accept_calls += 1
            outcome = self.script.popleft() if self.script else None
            if outcome is None and self.capacity is not None and self.open_handles >= self.capacity:
                outcome = (EMFILE, "pause")        # the same number everywhere
            if outcome is not None:
                error, accept_class = outcome
                found.append((IO_ACCEPT_ENDED, number, {"error": loop_errno(error), "accept_class": _CLASSES[accept_class]}))
                if accept_class == "retry":
                    self.queues[number] -= 1
                    continue
                break
            self.queues[number] -= 1
            self.accept_room -= 1
            found.append((IO_ACCEPTED, number, {"handle": self._new_peer().handle}))
        return found
