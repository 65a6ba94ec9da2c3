"""Control: what server.py asks of the loop, apart from turning: listeners, limits, policies, pausing, draining, closing, and what
there is to see. All of it is rare, so nothing here is written for speed. Unless a function says otherwise it is for the loop's
thread, or for any while no loop runs."""
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from fastaccept._admission cimport N_REASONS, admission_paused_ms
from fastaccept._backend cimport IO_ACCEPTED, MODE_QUEUE, MODE_REFUSE, MODE_REJECT, address_from_python, address_t
from fastaccept._buffers cimport outq_t
from fastaccept._connection cimport Connection
from fastaccept._conns cimport (
    CONN_CLOSE_OWED, CONN_CONNECTING, CONN_ENDED, CONN_OUTGOING, END_BY_SERVER, conn_init, conn_t,
)
from fastaccept._reactor cimport Reactor
from fastaccept._slots cimport SLOT_NONE, slots_alloc, slots_at, slots_bytes, slots_free, slots_next
from fastaccept._spin cimport SPIN_AUTO_US, spin_init
from fastaccept._stats cimport STATS_ERRNOS, stats_t
from fastaccept._timers cimport timers_bytes

from fastaccept._admission import reason_names, state_name
from fastaccept.errors import os_error, python_errno

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

_MODES = {"queue": MODE_QUEUE, "refuse": MODE_REFUSE, "reject": MODE_REJECT}


cdef class Control(Reactor):
    """A Reactor with its controls."""

    cdef int _enter(self) except -1:
        """Begin a call from outside a turn: the right thread, and a clock that is not from the last turn."""
        self.table.check_thread()
        self.table.now_ms = self.backend.now_ms()
        return 0

    # ---- listeners and limits

    def add_listener(self, handle, int backlog):
        """Take a bound handle over and listen on it; return the listener's number. Raises OSError, and then the handle is still the
        caller's."""
        self._enter()
        return self.acceptor.open(handle, backlog, self.table.now_ms)

    def settle(self):
        """Do at once what the end of a turn would do; for when the loop does not run."""
        self._enter()
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
        self._enter()
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
        self._enter()
        self.acceptor.limits.high = INT64_MAX if high is None else high
        self.acceptor.limits.low = INT64_MAX - 1 if low is None else low
        self.table.high_water_bytes = high_water
        self.table.low_water_bytes = high_water // 4
        self.table.max_write_buffer_bytes = max_write_buffer
        self.table.max_write_buffer_total_bytes = max_write_buffer_total
        self.backend.set_reserve(reserve_fds)
        self.acceptor.limits_changed(self.table.now_ms)

    def set_memory_limit(self, limit):
        """Pause accepting while the kernel holds so many bytes; None: never. How many it holds, the owner's _kernel_memory() tells."""
        self._enter()
        self.acceptor.set_memory_limit(INT64_MAX if limit is None else limit, self.table.now_ms)

    def set_timeouts(self, int64_t idle_ms, int64_t first_byte_ms, int64_t write_stall_ms, int64_t close_ms, int64_t connect_ms):
        """Put timeouts in force for connections to come, in milliseconds; 0 = none."""
        self.table.timeouts.idle_ms = idle_ms
        self.table.timeouts.first_byte_ms = first_byte_ms
        self.table.timeouts.write_stall_ms = write_stall_ms
        self.table.timeouts.close_ms = close_ms
        self.table.timeouts.connect_ms = connect_ms

    def set_spin(self, spin_us):
        """How many microseconds to look for events before sleeping, after some have come; None: for as long as it is worth it."""
        self._enter()
        spin_init(&self.spin, SPIN_AUTO_US if spin_us is None else spin_us, spin_us is None)

    def set_when_full(self, str mode not None, bytes reject_message not None):
        """Put a policy in force."""
        self._enter()
        self.backend.set_reject_message(reject_message)
        self.acceptor.full_mode = _MODES[mode]

    def pause(self, str mode not None):
        """The user pauses accepting on every listener; mode is "refuse" or "queue"."""
        self._enter()
        self.acceptor.user_mode = _MODES[mode]
        self.acceptor.pause(self.table.now_ms)

    def resume(self):
        """The user takes the pause back."""
        self._enter()
        self.acceptor.resume(self.table.now_ms)

    def connect(self, str host not None, int port, source_host=None, int source_port=0, context=None):
        """Begin to connect to a numeric address; return the Connection. Raises OSError where it fails at once."""
        cdef address_t peer, source
        cdef uint64_t token
        cdef conn_t *conn
        cdef Connection handle
        cdef int done
        self._enter()
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

    def call_later(self, double delay_s, callback, *args):
        """Have the loop call callback(*args) after delay_s seconds; return a TimerHandle."""
        self._enter()
        # Rounded up: never early.
        return self.calls.add_later(self.backend.now_ms() + <int64_t>(delay_s * 1000 + 0.999), callback, args)

    # ---- ending

    def begin_drain(self, int64_t timeout_ms):
        """Accept no more; stop when the last connection has ended, and abort what is left after timeout_ms (-1 = never)."""
        self._enter()
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
        self._enter()
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
        found["accept_errors"] = {python_errno(i): stats.accept_errors[i] for i in range(STATS_ERRNOS) if stats.accept_errors[i]}
        found["accept_calls"] = self.backend.accept_calls
        found["accepts_abandoned"] = self.backend.accepts_abandoned
        found["kernel_memory_limit"] = None if self.acceptor.memory_limit == INT64_MAX else self.acceptor.memory_limit
        found["user_space_bytes"] = (slots_bytes(&self.table.slots) + timers_bytes(&self.table.timers) + self.backend.bytes_held()
                                     + self.table.pool.in_use * sizeof(outq_t) + self.table.pool.size * sizeof(outq_t)
                                     + stats.write_buffered_bytes + self.input.held_bytes)
        return found

    def paused_ms(self, uint32_t number):
        """Return how long a listener has been paused for each reason, in milliseconds, by bit. Threads: any."""
        now_ms = self.backend.now_ms()
        return [admission_paused_ms(&self.acceptor.listeners[number].admission, i, now_ms) for i in range(N_REASONS)]
