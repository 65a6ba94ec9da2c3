"""Reactor: one turn after the other. What happens is found by the backend, what to do about it is decided in _admission and
_connection, and this file carries it between them and to the application. It names no system call and no errno of accept.

A turn: wait (the GIL is given up here and nowhere else), dispatch the batch, timers, calls from other threads, then the
listeners are put into the state that admission wants. The batch is taken a few events at a time: input is received for them (_input),
the callbacks are made, and the connections that those have touched are seen to (_settle).
"""
import threading

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.errno cimport EAGAIN, EINTR, ENOMEM
from libc.stdint cimport INT64_MAX, uint32_t
from fastaccept._admission cimport limits_room
from fastaccept._backend cimport (
    IO_ACCEPTED, IO_ACCEPT_ENDED, IO_CLOSED, IO_CONNECTED, IO_READABLE, IO_REJECTED, IO_SENT, IO_WAKEUP,
)
from fastaccept._calls cimport TimerHandle
from fastaccept._conns cimport (
    CONN_CLOSE_OWED, CONN_CONNECTING, CONN_DRAIN_OWED, CONN_ENDED, CONN_EOF, CONN_HELD, CONN_LINGERING, CONN_OPEN, CONN_OUTGOING,
    CONN_PAUSED_BY_USER, CONN_RESET,
    END_BY_CALLBACK, END_BY_DRAIN, END_BY_ERROR, END_BY_SERVER, END_BY_USER, conn_advance, conn_attend, conn_close, conn_connected,
    conn_discard_input, conn_end, conn_expire, conn_init, conn_is_readable, conn_next_attention, conn_release, conn_sent,
)
from fastaccept._slots cimport SLOT_NONE, slot_token, slots_alloc, slots_at, slots_find, slots_free, slots_next
from fastaccept._spin cimport spin_begins, spin_ended, spin_init
from fastaccept._timers cimport timers_next_ms, timers_pop

from fastaccept.errors import close_error, os_error

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "compat.h":
    bint fa_is_only_reference(PyObject *object, Py_ssize_t ours)


cdef class Reactor:
    """The loop over one backend.

    Args:
        backend: Backend; opened here.
        owner: told of what is rare, through its methods _accept_error, _callback_error, _paused and _resumed; asked by
            _kernel_memory for the bytes that the kernel holds, -1 = unknown.
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
        self.input = Input(self.table)
        spin_init(&self.spin, 0, False)
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
            if self.next_event == self.end_of_ahead:
                self._settle()       # before anything is received: what was held is older
                self.end_of_ahead += self.input.receive_ahead(&self.events[self.next_event], self.n_events - self.next_event)
            if self.events[self.next_event].kind == IO_CLOSED:
                self._settle()       # its slot becomes free, and an application that kept the handle may have had it attended again
            self.next_event += 1
            self._dispatch(&self.events[self.next_event - 1])
        self._settle()
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
            if self.n_events and spin_begins(&self.spin):
                n = self._spin(timeout_ms)
            else:
                n = self.backend.wait(self.events, BATCH, timeout_ms)
        self.table.now_ms = self.backend.now_ms()
        self.table.stats.turns += 1
        self.next_event = self.end_of_ahead = 0
        self.n_events = max(n, 0)
        if n < 0 and n != -EINTR:
            raise os_error(-n)
        # Callbacks let signal handlers run; a loop whose events call nothing needs this to hear Ctrl-C.
        return PyErr_CheckSignals()

    cdef int _spin(self, int64_t timeout_ms) noexcept nogil:
        """The last batch was not empty: look for more without sleeping. If none comes the turn is an empty one, and the next sleeps."""
        cdef int64_t limit_us = self.spin.limit_us if timeout_ms < 0 else min(self.spin.limit_us, timeout_ms * 1000)
        cdef int n = self.backend.wait(self.events, BATCH, 0)
        cdef int64_t end_us
        if n != 0 or limit_us == 0:
            return n
        end_us = self.backend.now_us() + limit_us
        while n == 0 and self.backend.now_us() < end_us:
            n = self.backend.wait(self.events, BATCH, 0)
        spin_ended(&self.spin, n > 0)
        return n

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
            if self.table.stats.write_buffered_bytes < JOINED_BYTES + self.input.n_bytes:
                return 0             # its answer leaves with those of the others that were received for at once
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
        if self.is_woken:            # also without a call: it may have run before its thread came to wake us
            with self.wake_lock:     # before the calls are counted: one that comes now wakes the loop again
                self.is_woken = False
        if not self.calls.soon:
            return 0
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
        cdef received_t *received = self.input.take(slot_token(&conn.slot))
        if received == NULL and conn_is_readable(conn):
            received = self.input.receive(slot_token(&conn.slot))
        if received != NULL:
            return self._on_received(conn, received)
        if conn.state == CONN_LINGERING:
            conn_discard_input(self.table, conn)
        return 0

    cdef int _on_received(self, conn_t *conn, received_t *received) except -1:
        if received.n < 0:
            if received.n != -EAGAIN and received.n != -EINTR:
                conn_end(self.table, conn, END_BY_ERROR, <int>-received.n, False)
            return 0
        if conn.state != CONN_OPEN:
            return 0                 # closed by the callback of another one, since this was received
        if received.n > 0:
            conn.bytes_received += received.n
            conn.in_at_ms = <uint32_t>self.table.now_ms
            self.table.stats.bytes_received += received.n
        if conn.flags & CONN_PAUSED_BY_USER:     # likewise
            conn.flags |= CONN_HELD
            return self.input.hold(slot_token(&conn.slot), received)
        if received.n == 0:
            return self._on_eof(conn)
        return self._deliver(conn, self.input.data_of(received)) if self.on_data is not None else 0

    cdef int _deliver(self, conn_t *conn, bytes data) except -1:
        cdef Connection handle = self._lend(conn)
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
        cdef Connection handle
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
            elif conn.flags & (CONN_DRAIN_OWED | CONN_HELD):
                self._give_owed(conn)
            conn = conn_next_attention(self.table)
        return 0

    cdef int _give_owed(self, conn_t *conn) except -1:
        """on_drain, once enough is sent; the input that was held, once reading goes on."""
        cdef bytes data
        if conn.flags & CONN_DRAIN_OWED and (conn.out == NULL or conn.out.bytes <= self.table.low_water_bytes):
            conn.flags &= ~<unsigned int>CONN_DRAIN_OWED
            if self.on_drain is not None and conn.state == CONN_OPEN:
                self._call(conn, self.on_drain, "on_drain")
        if conn.flags & CONN_HELD and conn_is_readable(conn):
            conn.flags &= ~<unsigned int>CONN_HELD
            data = self.input.give_held(slot_token(&conn.slot))
            if not data:
                return self._on_eof(conn)
            if self.on_data is not None:
                return self._deliver(conn, data)
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
        if conn.flags & CONN_HELD:
            self.input.give_held(token)
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
