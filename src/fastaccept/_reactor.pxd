"""Reactor: the loop. It takes what the backend reports, lets the leaves decide, acts, and calls the application."""
from libc.stdint cimport int64_t, uint64_t
from fastaccept._acceptor cimport Acceptor
from fastaccept._backend cimport Backend, io_event_t
from fastaccept._calls cimport Calls
from fastaccept._connection cimport Connection
from fastaccept._conns cimport Connections, conn_t, end_cause_t
from fastaccept._input cimport Input, received_t
from fastaccept._spin cimport spin_t

cdef enum:
    BATCH = 512                      # events of one turn
    JOINED_BYTES = 16384             # answers wait for the callbacks after theirs, unless so much more waits than was received with them

cdef class Reactor:
    # The application's callbacks; None = not wanted.
    cdef public object on_connect, on_data, on_eof, on_drain, on_close
    cdef object owner                # told of what is rare: errors, pauses, resumes (server.py)
    cdef Backend backend
    cdef Connections table
    cdef Acceptor acceptor
    cdef Calls calls
    cdef Input input
    # the turn
    cdef io_event_t events[BATCH]
    cdef int n_events                # of the batch
    cdef int end_of_ahead            # first one of it that no input was received for yet
    cdef int next_event              # first one of it that is not dispatched: a callback may leave by KeyboardInterrupt
    cdef spin_t spin
    cdef Connection spare            # a handle that nobody else holds, for the next callback
    # waking and ending
    cdef object wake_lock            # held for a wakeup and for closing, so that no wakeup meets a closed descriptor
    cdef set close_calls             # made when close() is done
    cdef bint is_woken               # a wakeup is under way
    cdef readonly bint is_open
    cdef public bint stopping        # run() returns after this turn
    cdef readonly bint draining
    cdef int64_t drain_due_ms
    cdef uint64_t drain_started      # connections open when draining began
    cdef uint64_t drain_aborted      # those that the deadline cut

    cpdef int turn(self, int64_t max_wait_ms=*) except -1
    cdef int _wait(self, int64_t timeout_ms) except -1
    cdef int _spin(self, int64_t timeout_ms) noexcept nogil
    cdef int64_t _wait_ms(self, int64_t max_wait_ms) noexcept
    cdef int _dispatch(self, io_event_t *event) except -1
    cdef int _run_due(self) except -1
    cdef int _run_calls(self) except -1
    cdef int _settle(self) except -1

    cdef int _on_accepted(self, io_event_t *event) except -1
    cdef int _on_connected(self, conn_t *conn, int error) except -1
    cdef int _on_readable(self, conn_t *conn) except -1
    cdef int _on_received(self, conn_t *conn, received_t *received) except -1
    cdef int _deliver(self, conn_t *conn, bytes data) except -1
    cdef int _on_eof(self, conn_t *conn) except -1
    cdef int _give_owed(self, conn_t *conn) except -1
    cdef int _on_ended(self, conn_t *conn) except -1
    cdef int _on_closed(self, conn_t *conn) except -1

    cdef int _open_connection(self, conn_t *conn) except -1
    cdef int _no_memory_for(self, io_event_t *event, int error) except -1
    cdef Connection _lend(self, conn_t *conn)
    cdef int _give_back(self, Connection handle) except -1
    cdef int _call(self, conn_t *conn, object callback, str name) except -1
    cdef int _call_plain(self, object callback, tuple args, str name) except -1
    cdef int _callback_failed(self, str name, object error, Connection handle) except -1
    cdef uint64_t _end_all(self, end_cause_t cause, bint reset) noexcept
