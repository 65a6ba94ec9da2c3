"""Reactor: one turn after the other. What happens is found by the backend, what to do about it is decided in _admission and
_connection, and this file carries it between them and to the application. It names no system call and no errno of accept.

A turn: wait (the GIL is given up here and nowhere else), dispatch the batch, timers, calls from other threads, then the
listeners are put into the state that admission wants. After each callback the connections that it touched are seen to
(_settle), so that an answer leaves before the next event is looked at.
"""
import threading

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.errno cimport EAGAIN, EINTR, ENOMEM
from libc.stdint cimport INT64_MAX, uint32_t
from fastaccept._admission cimport N_REASONS, admission_paused_ms, limits_room
from fastaccept._backend cimport (
    IO_ACCEPTED, IO_ACCEPT_ENDED, IO_CLOSED, IO_CONNECTED, IO_READABLE, IO_REJECTED, IO_SENT, IO_WAKEUP, MODE_QUEUE, MODE_REFUSE,
    MODE_REJECT, address_from_python, address_t,
)
from fastaccept._buffers cimport outq_t
from fastaccept._calls cimport TimerHandle
from fastaccept._connection cimport (
    CONN_CLOSE_OWED, CONN_CONNECTING, CONN_DRAIN_OWED, CONN_ENDED, CONN_EOF, CONN_LINGERING, CONN_OPEN, CONN_OUTGOING, CONN_RESET,
    END_BY_CALLBACK, END_BY_DRAIN, END_BY_ERROR, END_BY_SERVER, END_BY_USER, conn_advance, conn_attend, conn_close, conn_connected,
    conn_discard_input, conn_end, conn_expire, conn_init, conn_is_readable, conn_next_attention, conn_release, conn_sent,
)
from fastaccept._slots cimport SLOT_NONE, slot_token, slots_alloc, slots_at, slots_bytes, slots_find, slots_free, slots_next
from fastaccept._stats cimport STATS_ERRNOS, stats_t
from fastaccept._timers cimport timers_bytes, timers_next_ms, timers_pop

from fastaccept._admission import reason_names, state_name
from fastaccept.errors import close_error, os_error

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "compat.h":
    bint fa_is_only_reference(PyObject *object, Py_ssize_t ours)

_MODES = {"queue": MODE_QUEUE, "refuse": MODE_REFUSE, "reject": MODE_REJECT}


cdef class Reactor:
    """The loop over one backend.

    Args:
        backend: Backend; opened here.
        owner: told of what is rare, through its methods _accept_error, _callback_error, _paused and _resumed.
    Raises:
        OSError: the system has no descriptor or memory for the backend.
    """

    def __init__(self, Backend backend not None, owner):
        backend.open()
        self.backend = backend
        self.owner = owner
        self.table = Connections(backend)
        self.table.now_ms = backend.now_ms()
        self.acceptor = Acceptor()
        self.acceptor.backend = backend
        self.acceptor.owner = owner
        self.acceptor.stats = &self.table.stats      # lives as long as the table, which we hold
        self.calls = Calls()
        self.read_buffer = PyBytes_FromStringAndSize(NULL, READ_BYTES)
        self.wake_lock = threading.Lock()
        self.close_calls = set()
        self.drain_due_ms = INT64_MAX
        self.is_open = True

    # ---- the loop

    def run(self, int64_t max_wait_ms=-1):
        """Turn until `stopping` is set. max_wait_ms bounds one wait; -1 = no bound."""
        if self.table.owner != 0:
            raise RuntimeError("the loop is already running")
        self.table.owner = PyThread_get_thread_ident()
        try:
            while not self.stopping:
                self.turn(max_wait_ms)
        finally:
            self.table.owner = 0

    cpdef int turn(self, int64_t max_wait_ms=-1) except -1:
        """One pass of the loop."""
        if self.next_event == self.n_events:
            self._wait(self._wait_ms(max_wait_ms))
        while self.next_event < self.n_events:
            self.next_event += 1
            self._dispatch(&self.events[self.next_event - 1])
        self._run_due()
        self._run_calls()
        self._settle()
        self.acceptor.settle(self.table.now_ms)
        return self._settle()        # what the application did in on_pause and on_resume

    cdef int _wait(self, int64_t timeout_ms) except -1:
        """Let the system tell what has happened. The only place where the GIL is given up."""
        cdef int n
        self.backend.accept_room = limits_room(&self.acceptor.limits)
        with nogil:
            n = self.backend.wait(self.events, BATCH, timeout_ms)
        self.table.now_ms = self.backend.now_ms()
        self.table.stats.turns += 1
        self.next_event = 0
        self.n_events = max(n, 0)
        if n < 0 and n != -EINTR:
            raise os_error(-n)
        # Callbacks let signal handlers run; a loop whose events call nothing needs this to hear Ctrl-C.
        return PyErr_CheckSignals()

    cdef int64_t _wait_ms(self, int64_t max_wait_ms) noexcept:
        """How long the next wait may be: until the earliest deadline; -1 = for ever."""
        cdef int64_t due = min(min(timers_next_ms(&self.table.timers), self.calls.next_ms()),
                               min(self.acceptor.next_ms(), self.drain_due_ms))
        cdef int64_t wait_ms
        if self.stopping:
            return 0
        if due == INT64_MAX:
            return max_wait_ms
        wait_ms = max(due - self.backend.now_ms(), <int64_t>0)
        return wait_ms if max_wait_ms < 0 else min(wait_ms, max_wait_ms)

    cdef int _dispatch(self, io_event_t *event) except -1:
        cdef conn_t *conn
        cdef int kind = event.kind
        self.table.stats.events += 1
        if kind == IO_ACCEPTED:
            return self._on_accepted(event)
        if kind == IO_ACCEPT_ENDED:
            return self.acceptor.ended(event, self.table.now_ms)
        if kind == IO_REJECTED:
            self.table.stats.rejected += event.result
            return 0
        if kind == IO_WAKEUP:
            return 0                 # what it was for is in self.calls, or in a flag
        conn = <conn_t *>slots_find(&self.table.slots, event.token)
        if conn == NULL:
            self.table.stats.stale_events += 1
            return 0
        if kind == IO_CLOSED:
            return self._on_closed(conn)
        if conn.state == CONN_ENDED:
            return 0                 # its end was decided earlier in this batch
        if kind == IO_READABLE:
            self._on_readable(conn)
        elif kind == IO_SENT:
            conn_sent(self.table, conn, event.result)
        elif kind == IO_CONNECTED:
            self._on_connected(conn, -<int>event.result)
        else:
            conn_end(self.table, conn, END_BY_ERROR, event.error, False)
        return self._settle()

    cdef int _run_due(self) except -1:
        """Everything whose time has come."""
        cdef TimerHandle timer
        cdef uint32_t index
        while timers_pop(&self.table.timers, self.table.now_ms, &index):
            conn_expire(self.table, index)
            self._settle()
        timer = self.calls.pop_due(self.table.now_ms)
        while timer is not None:
            callback, args = timer.callback, timer.args
            self.calls.forget(timer)
            self._call_plain(callback, args, "call_later")
            timer = self.calls.pop_due(self.table.now_ms)
        self.acceptor.retry(self.table.now_ms)
        if self.table.now_ms >= self.drain_due_ms:
            self.drain_due_ms = INT64_MAX
            self.drain_aborted = self._end_all(END_BY_DRAIN, True)
        return 0

    cdef int _run_calls(self) except -1:
        """What other threads asked for before now; what a call adds waits for the next turn."""
        cdef Py_ssize_t n
        if not self.calls.soon:
            return 0
        self.is_woken = False        # before the calls are counted: one that comes now wakes the loop again
        n = len(self.calls.soon)
        while n > 0:
            n -= 1
            callback, args = self.calls.soon.popleft()
            self._call_plain(callback, args, "call_soon_threadsafe")
        return 0

    # ---- connections

    cdef int _on_accepted(self, io_event_t *event) except -1:
        cdef uint64_t token
        cdef conn_t *conn = <conn_t *>slots_alloc(&self.table.slots, &token)
        cdef int done
        if conn == NULL:
            return self._no_memory_for(event, ENOMEM)
        done = self.backend.attach(token, event.handle)
        if done < 0:
            slots_free(&self.table.slots, token)
            return self._no_memory_for(event, -done)
        conn.peer = event.peer
        conn.listener = <uint32_t>event.token
        self.acceptor.opened(conn.listener, self.table.now_ms)
        conn_init(self.table, conn, CONN_OPEN, CONN_CLOSE_OWED)
        return self._open_connection(conn)

    cdef int _no_memory_for(self, io_event_t *event, int error) except -1:
        """A client was accepted, and there is no memory for it: it is reset, so that it knows."""
        self.backend.discard(event.handle)
        return self.acceptor.failed(<uint32_t>event.token, error, True, self.table.now_ms)

    cdef int _open_connection(self, conn_t *conn) except -1:
        """on_connect; then a first read, before the backend is asked to watch: a client that has sent already is answered without
        that, and one that also closes never needs it."""
        if self.on_connect is not None:
            self._call(conn, self.on_connect, "on_connect")
        if conn_is_readable(conn):
            self._on_readable(conn)
        conn_attend(self.table, conn)
        return self._settle()

    def connect(self, str host not None, int port, source_host=None, int source_port=0, context=None):
        """Begin to connect to a numeric address; return the Connection. Raises OSError where it fails at once."""
        cdef address_t peer, source
        cdef uint64_t token
        cdef conn_t *conn
        cdef Connection handle
        cdef int done
        self.table.check_thread()
        address_from_python(host, port, &peer)
        if source_host is not None:
            address_from_python(source_host, source_port, &source)
        conn = <conn_t *>slots_alloc(&self.table.slots, &token)
        if conn == NULL:
            raise MemoryError
        done = self.backend.connect(token, &peer, &source if source_host is not None else NULL)
        if done < 0:
            slots_free(&self.table.slots, token)
            raise os_error(-done)
        conn.peer = peer
        conn_init(self.table, conn, CONN_CONNECTING, CONN_OUTGOING | CONN_CLOSE_OWED)
        handle = self._lend(conn)
        handle.context = context
        self._give_back(handle)
        return handle

    cdef int _on_connected(self, conn_t *conn, int error) except -1:
        if conn.state != CONN_CONNECTING:
            return 0
        if error:
            conn_end(self.table, conn, END_BY_ERROR, error, False)
            return 0
        self.table.stats.connected += 1
        conn_connected(self.table, conn)
        return self._open_connection(conn)

    cdef int _on_readable(self, conn_t *conn) except -1:
        """One recv, one callback. More than READ_BYTES is left for the next turn, so that nobody is starved."""
        cdef Connection handle
        cdef int64_t n
        if not conn_is_readable(conn):
            if conn.state == CONN_LINGERING:
                conn_discard_input(self.table, conn)
            return 0
        n = self.backend.recv(slot_token(&conn.slot), PyBytes_AS_STRING(self.read_buffer), READ_BYTES)
        if n == 0:
            return self._on_eof(conn)
        if n < 0:
            if n != -EAGAIN and n != -EINTR:
                conn_end(self.table, conn, END_BY_ERROR, <int>-n, False)
            return 0
        conn.bytes_received += n
        conn.in_at_ms = <uint32_t>self.table.now_ms
        self.table.stats.bytes_received += n
        if self.on_data is None:
            return 0
        data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.read_buffer), n)
        handle = self._lend(conn)
        try:
            self.on_data(handle, data)
        except Exception as error:
            self._callback_failed("on_data", error, handle)
        finally:
            self._give_back(handle)
        return 0

    cdef int _on_eof(self, conn_t *conn) except -1:
        """The peer's FIN. The connection is closed when on_eof is not there or returns something false; else it stays open for
        writing."""
        cdef uint64_t token = slot_token(&conn.slot)
        cdef bint keep_open = False
        conn.flags |= CONN_EOF
        if self.on_eof is not None:
            handle = self._lend(conn)
            try:
                keep_open = self.on_eof(handle)
            except Exception as error:
                self._callback_failed("on_eof", error, handle)
            finally:
                self._give_back(handle)
        if not keep_open:
            conn_close(self.table, conn)
        conn_attend(self.table, conn)
        return 0

    cdef int _settle(self) except -1:
        """See to the connections that calls and events have touched, until none is left."""
        cdef conn_t *conn = conn_next_attention(self.table)
        while conn != NULL:
            if conn.state != CONN_ENDED and conn.state != CONN_CONNECTING:
                conn_advance(self.table, conn)
            if conn.state == CONN_ENDED:
                self._on_ended(conn)
            elif conn.flags & CONN_DRAIN_OWED and (conn.out == NULL or conn.out.bytes <= self.table.low_water_bytes):
                conn.flags &= ~<unsigned int>CONN_DRAIN_OWED
                if self.on_drain is not None and conn.state == CONN_OPEN:
                    self._call(conn, self.on_drain, "on_drain")
            conn = conn_next_attention(self.table)
        return 0

    cdef int _on_ended(self, conn_t *conn) except -1:
        """Give the socket back, then tell the application. The slot stays until IO_CLOSED."""
        cdef Connection handle
        if not conn.flags & CONN_CLOSE_OWED:
            return 0
        conn.flags &= ~<unsigned int>CONN_CLOSE_OWED
        self.backend.close_socket(slot_token(&conn.slot), conn.flags & CONN_RESET)
        if self.on_close is not None:
            handle = self._lend(conn)
            try:
                self.on_close(handle, close_error(conn.cause, conn.error))
            except Exception as error:
                self._callback_failed("on_close", error, handle)
            finally:
                self._give_back(handle)
        return 0

    cdef int _on_closed(self, conn_t *conn) except -1:
        """IO_CLOSED: the slot is free, and whoever waits for room or for a descriptor may have it."""
        cdef bint was_accepted = not (conn.flags & CONN_OUTGOING)
        cdef uint64_t token = slot_token(&conn.slot)
        conn_release(self.table, conn)
        slots_free(&self.table.slots, token)
        self.table.stats.closed += 1
        if was_accepted:
            self.acceptor.released(self.table.now_ms)
        if self.draining and self.table.slots.in_use == 0:
            self.stopping = True
        return 0

    # ---- callbacks

    cdef Connection _lend(self, conn_t *conn):
        """The connection's handle: the one that the application keeps, or the spare one, or a new one."""
        cdef Connection handle
        if conn.handle != NULL:
            return <Connection>conn.handle
        handle = self.spare
        self.spare = None
        if handle is None:
            handle = Connection.__new__(Connection)
            handle.table = self.table
        handle.token = slot_token(&conn.slot)
        return handle

    cdef int _give_back(self, Connection handle) except -1:
        """After a callback: a handle that the application keeps is pinned to its connection, any other is free for the next one."""
        cdef conn_t *conn = <conn_t *>slots_find(&self.table.slots, handle.token)
        cdef bint is_pinned = conn != NULL and conn.handle == <PyObject *>handle
        cdef bint is_kept = handle.context is not None or not fa_is_only_reference(<PyObject *>handle, 2 if is_pinned else 1)
        if conn != NULL and is_kept and not is_pinned:
            Py_INCREF(handle)        # released in conn_release(), or below
            conn.handle = <PyObject *>handle
        elif not is_kept:
            if is_pinned:
                conn.handle = NULL
                Py_XDECREF(<PyObject *>handle)
            self.spare = handle
        return 0

    cdef int _call(self, conn_t *conn, object callback, str name) except -1:
        """A callback that takes the connection alone."""
        cdef Connection handle = self._lend(conn)
        try:
            callback(handle)
        except Exception as error:
            self._callback_failed(name, error, handle)
        finally:
            self._give_back(handle)
        return 0

    cdef int _callback_failed(self, str name, object error, Connection handle) except -1:
        """A callback raised: its connection is aborted, the application is told, the loop goes on."""
        cdef conn_t *conn = <conn_t *>slots_find(&self.table.slots, handle.token) if handle is not None else NULL
        self.table.stats.callback_errors += 1
        if conn != NULL:
            conn_end(self.table, conn, END_BY_CALLBACK, 0, True)
        self.owner._callback_error(name, error, handle)
        return 0

    cdef int _call_plain(self, object callback, tuple args, str name) except -1:
        """A call that belongs to no connection."""
        try:
            callback(*args)
        except Exception as error:
            self._callback_failed(name, error, None)
        return self._settle()

    def call_soon_threadsafe(self, callback, *args):
        """Have the loop call callback(*args) in its next turn. Threads: any."""
        self.calls.soon.append((callback, args))
        self.wake()

    def wake(self):
        """Make the loop turn. Threads: any."""
        with self.wake_lock:
            if self.is_open and not self.is_woken:
                self.is_woken = True
                self.backend.wakeup()

    def call_later(self, double delay_s, callback, *args):
        """Have the loop call callback(*args) after delay_s seconds; return a TimerHandle."""
        self.table.check_thread()
        # Rounded up: never early.
        return self.calls.add_later(self.backend.now_ms() + <int64_t>(delay_s * 1000 + 0.999), callback, args)

    # ---- listeners and limits

    def add_listener(self, handle, int backlog):
        """Take a bound handle over and listen on it; return the listener's number. Raises OSError, and then the handle is still the
        caller's."""
        self.table.check_thread()
        return self.acceptor.open(handle, backlog, self.table.now_ms)

    def settle(self):
        """Do at once what the end of a turn would do; for when the loop does not run."""
        self.table.now_ms = self.backend.now_ms()
        self._settle()
        self.acceptor.settle(self.table.now_ms)
        self._settle()

    def at_close(self, callback):
        """Have callback() called when close() has done its work. Threads: any."""
        with self.wake_lock:
            if self.is_open:
                self.close_calls.add(callback)
                return
        callback()

    def not_at_close(self, callback):
        """Take at_close() back. Threads: any."""
        with self.wake_lock:
            self.close_calls.discard(callback)

    def close_listener(self, uint32_t number):
        """Close a listening socket; connections that came by it live on."""
        self.table.check_thread()
        self.acceptor.close(number)

    def listener_state(self, uint32_t number):
        """Return (state, reasons, queued, backlog) of a listener; the last two are None where the system does not tell. Threads: any."""
        cdef int64_t queued = 0, backlog = 0
        if number >= self.acceptor.n_listeners or not self.acceptor.listeners[number].is_open:
            return "closed", frozenset(), None, None
        reasons = self.acceptor.listeners[number].admission.reasons
        if self.backend.listener_queue(number, &queued, &backlog) < 0:
            return state_name(reasons), reason_names(reasons), None, None
        return state_name(reasons), reason_names(reasons), queued, backlog

    def set_limits(self, high, low, int64_t reserve_fds, size_t high_water, size_t max_write_buffer, size_t max_write_buffer_total):
        """Put limits in force; high and low are None for no limit."""
        self.table.check_thread()
        self.acceptor.limits.high = INT64_MAX if high is None else high
        self.acceptor.limits.low = INT64_MAX - 1 if low is None else low
        self.table.high_water_bytes = high_water
        self.table.low_water_bytes = high_water // 4
        self.table.max_write_buffer_bytes = max_write_buffer
        self.table.max_write_buffer_total_bytes = max_write_buffer_total
        self.backend.set_reserve(reserve_fds)
        self.acceptor.limits_changed(self.table.now_ms)

    def set_timeouts(self, int64_t idle_ms, int64_t first_byte_ms, int64_t write_stall_ms, int64_t close_ms, int64_t connect_ms):
        """Put timeouts in force for connections to come, in milliseconds; 0 = none."""
        self.table.timeouts.idle_ms = idle_ms
        self.table.timeouts.first_byte_ms = first_byte_ms
        self.table.timeouts.write_stall_ms = write_stall_ms
        self.table.timeouts.close_ms = close_ms
        self.table.timeouts.connect_ms = connect_ms

    def set_when_full(self, str mode not None, bytes reject_message not None):
        """Put a policy in force."""
        self.table.check_thread()
        self.backend.set_reject_message(reject_message)
        self.acceptor.full_mode = _MODES[mode]

    def pause(self, str mode not None):
        """The user pauses accepting on every listener; mode is "refuse" or "queue"."""
        self.table.check_thread()
        self.acceptor.user_mode = _MODES[mode]
        self.acceptor.pause(self.table.now_ms)

    def resume(self):
        """The user takes the pause back."""
        self.table.check_thread()
        self.acceptor.resume(self.table.now_ms)

    # ---- ending

    def begin_drain(self, int64_t timeout_ms):
        """Accept no more; stop when the last connection has ended, and abort what is left after timeout_ms (-1 = never)."""
        self.table.check_thread()
        if self.draining:
            self.drain_due_ms = min(self.drain_due_ms, self.backend.now_ms() + timeout_ms if timeout_ms >= 0 else INT64_MAX)
            return
        self.draining = True
        self.drain_started = self.table.slots.in_use
        self.acceptor.drain(self.table.now_ms)
        if timeout_ms >= 0:
            self.drain_due_ms = self.backend.now_ms() + timeout_ms
        if self.table.slots.in_use == 0:
            self.stopping = True

    @property
    def drained(self):
        """(connections that finished, connections that the deadline cut) of the drain."""
        return self.drain_started - self.drain_aborted, self.drain_aborted

    cdef uint64_t _end_all(self, end_cause_t cause, bint reset) noexcept:
        """End every connection; returns how many had not ended by themselves."""
        cdef uint32_t index = slots_next(&self.table.slots, 0)
        cdef uint64_t ended = 0
        cdef conn_t *conn
        while index != SLOT_NONE:
            conn = <conn_t *>slots_at(&self.table.slots, index)
            if conn.state != CONN_ENDED:
                if conn.state != CONN_CONNECTING:
                    conn_advance(self.table, conn)           # what the system takes at once still goes out
                conn_end(self.table, conn, END_BY_USER if cause == END_BY_SERVER and conn.out == NULL else cause, 0, reset)
                ended += 1
            index = slots_next(&self.table.slots, index + 1)
        return ended

    def close(self):
        """Close everything: listeners, connections (each hears on_close), the backend. Once only; not while the loop runs."""
        cdef uint32_t i
        if not self.is_open:
            return
        for i in range(self.acceptor.n_listeners):
            self.acceptor.close(i)
        self.table.owner = PyThread_get_thread_ident()
        try:
            self._close_connections()
        finally:
            self.table.owner = 0
            with self.wake_lock:
                self.is_open = False
                self.backend.shutdown()
            for callback in list(self.close_calls):
                callback()

    def _close_connections(self):
        """Until the backend has given every slot back. Connections that on_close callbacks open are closed as well."""
        while True:
            while self.next_event < self.n_events:           # of a batch that an exception cut short, or of the wait below
                self.next_event += 1
                if self.events[self.next_event - 1].kind == IO_ACCEPTED:
                    self.backend.discard(self.events[self.next_event - 1].handle)
                else:
                    self._dispatch(&self.events[self.next_event - 1])
            self._end_all(END_BY_SERVER, False)
            self._settle()
            if self.table.slots.in_use == 0:
                break
            self._wait(1000)

    # ---- what there is to see

    def handles(self):
        """Return a list of the open connections. Threads: the loop's."""
        cdef list found = []
        cdef uint32_t index = slots_next(&self.table.slots, 0)
        cdef conn_t *conn
        self.table.check_thread()
        while index != SLOT_NONE:
            conn = <conn_t *>slots_at(&self.table.slots, index)
            if conn.state != CONN_ENDED:
                handle = self._lend(conn)
                found.append(handle)
                self._give_back(handle)
            index = slots_next(&self.table.slots, index + 1)
        return found

    @property
    def active(self):
        """Accepted connections whose slot is not free yet. Threads: any."""
        return self.acceptor.limits.active

    @property
    def limit(self):
        """The connection limit in force, or None."""
        return None if self.acceptor.limits.high == INT64_MAX else self.acceptor.limits.high

    @property
    def in_loop(self):
        """True in the thread that runs the loop."""
        return self.table.owner == PyThread_get_thread_ident()

    @property
    def is_running(self):
        """True while a thread runs the loop."""
        return self.table.owner != 0

    def counters(self):
        """Return the counters as a dict (see Stats in stats.py). Threads: any."""
        cdef stats_t stats = self.table.stats
        cdef int i
        found = dict(stats)
        found["accept_errors"] = {i: stats.accept_errors[i] for i in range(STATS_ERRNOS) if stats.accept_errors[i]}
        found["accept_calls"] = self.backend.accept_calls
        found["user_space_bytes"] = (slots_bytes(&self.table.slots) + timers_bytes(&self.table.timers) + self.backend.bytes_held()
                                     + self.table.pool.in_use * sizeof(outq_t) + self.table.pool.size * sizeof(outq_t)
                                     + stats.write_buffered_bytes)
        return found

    def paused_ms(self, uint32_t number):
        """Return how long a listener has been paused for each reason, in milliseconds, by bit. Threads: any."""
        now_ms = self.backend.now_ms()
        return [admission_paused_ms(&self.acceptor.listeners[number].admission, i, now_ms) for i in range(N_REASONS)]
