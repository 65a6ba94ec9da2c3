"""Connections: their records, and what may happen to them. The handle that Python holds is in _connection.

State of a conn_t, written by _set_state() alone:

    CONNECTING   connect() is under way                                     outgoing connections only
    OPEN         reads and writes
    FLUSHING     close() was called; what was written before is being sent, nothing is read
    LINGERING    all is sent, then FIN; waits for the peer's FIN, because closing while the peer still sends is a reset
                 that can overtake the last bytes (RFC 1122, 4.2.2.13). Input is dropped
    ENDED        given to the backend to be closed; the slot is free at IO_CLOSED

                      +-------------- conn_end() from any state: an error, a timeout, abort() --------------+
                      |                                                                                     v
    CONNECTING --conn_connected()--> OPEN --conn_close()--> FLUSHING --all sent--> LINGERING --peer's FIN--> ENDED
                                                               |                                            ^
                                                               +--all acknowledged, or FIN already seen-----+

    Where the system does not tell what is acknowledged, a LINGERING connection ends when nothing has come for a while.

Guarantees
  - No callback runs from inside a call: what a call asks for is noted (conn_attend), and the loop sees to it when the
    callback that made the call has returned.
  - on_connect and on_close come in pairs, once each; for connect(), on_close alone if it failed.
  - Whatever the loop or a callback still holds of a connection is a token; one that is stale finds nothing.
"""
cimport cython
from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fastaccept._backend cimport Backend, address_t
from fastaccept._buffers cimport outq_pool_t, outq_t
from fastaccept._slots cimport slot_t, slots_t
from fastaccept._stats cimport stats_t
from fastaccept._timers cimport timers_t

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef enum conn_state_t:
    CONN_CONNECTING
    CONN_OPEN
    CONN_FLUSHING
    CONN_LINGERING
    CONN_ENDED

cdef enum conn_flag_t:
    CONN_OUTGOING = 1                # made by connect(); does not count against the limit
    CONN_READING = 2                 # the backend was told to report what can be read
    CONN_PAUSED_BY_USER = 4          # pause_reading()
    CONN_PAUSED_BY_WRITES = 8        # more than the high-water mark waits to be written
    CONN_EOF = 16                    # the peer's FIN was seen
    CONN_SENDING = 32                # a send is under way; IO_SENT will end it
    CONN_SHUT_ASKED = 64             # FIN when all is written
    CONN_SHUT = 128                  # FIN was sent
    CONN_DRAIN_OWED = 256            # write() returned False: on_drain is owed
    CONN_ATTENDED = 512              # in the attention list
    CONN_RESET = 1024                # to be closed with RST
    CONN_CLOSE_OWED = 2048           # the application knows of it: on_close is owed
    CONN_FRESH = 4096                # the backend was not told yet whether to watch for input
    CONN_HELD = 8192                 # input was received that the application has not got: it is paused

cdef enum end_cause_t:               # why a connection ended, for on_close
    END_BY_USER                      # close(), abort(), or the peer's FIN: no error
    END_BY_ERROR                     # conn_t.error
    END_BY_IDLE                      # Timeouts.idle
    END_BY_FIRST_BYTE                # Timeouts.first_byte
    END_BY_WRITE_STALL               # Timeouts.write_stall
    END_BY_CLOSE                     # Timeouts.close
    END_BY_CONNECT                   # Timeouts.connect
    END_BY_OVERFLOW                  # Limits.max_write_buffer or max_write_buffer_total
    END_BY_CALLBACK                  # a callback raised
    END_BY_DRAIN                     # the deadline of drain()
    END_BY_SERVER                    # Server.close() with bytes still to be sent

cdef struct conn_t:
    slot_t slot
    PyObject *handle                 # the Connection, while the application keeps it; NULL: made anew when needed
    outq_t *out                      # what waits to be written; NULL = nothing
    uint64_t bytes_received
    uint64_t bytes_sent
    uint32_t in_at_ms                # low 32 bits of the clock: opened, or last byte received
    uint32_t out_at_ms               # last progress in sending, or when that began; LINGERING: since when
    uint32_t next_attention          # link of the attention list
    int32_t error                    # errno, with END_BY_ERROR
    uint16_t flags                   # conn_flag_t
    uint8_t state                    # conn_state_t
    uint8_t cause                    # end_cause_t
    uint16_t listener                # number of the listener it came by
    address_t peer

cdef struct timeouts_t:              # milliseconds; 0 = none
    int64_t idle_ms
    int64_t first_byte_ms
    int64_t write_stall_ms
    int64_t close_ms
    int64_t connect_ms


@cython.final
cdef class Connections:
    """All connections of one server. Touched by the loop's thread alone while the loop runs."""
    cdef Backend backend
    cdef slots_t slots               # of conn_t
    cdef timers_t timers             # by index of the slot; only for those that have a deadline
    cdef outq_pool_t pool
    cdef stats_t stats
    cdef timeouts_t timeouts
    cdef int64_t now_ms              # the clock, read once a turn
    cdef unsigned long owner         # the thread that runs the loop; 0 = it does not run
    cdef size_t high_water_bytes
    cdef size_t low_water_bytes
    cdef size_t max_write_buffer_bytes           # of one connection
    cdef size_t max_write_buffer_total_bytes     # of all
    cdef uint32_t first_attention    # list of connections that the loop has to see to
    cdef uint32_t last_attention

    cdef inline int check_thread(self) except -1:
        if self.owner != 0 and self.owner != PyThread_get_thread_ident():
            raise RuntimeError("called from a thread that does not run the loop; use Server.call_soon_threadsafe()")
        return 0

cdef void conn_init(Connections table, conn_t *conn, conn_state_t state, unsigned int flags) noexcept
cdef void conn_connected(Connections table, conn_t *conn) noexcept
cdef void conn_attend(Connections table, conn_t *conn) noexcept
cdef conn_t *conn_next_attention(Connections table) noexcept
cdef bint conn_write(Connections table, conn_t *conn, bytes data) except -1
cdef void conn_sent(Connections table, conn_t *conn, int64_t n) noexcept
cdef void conn_advance(Connections table, conn_t *conn) noexcept
cdef void conn_discard_input(Connections table, conn_t *conn) noexcept
cdef void conn_close(Connections table, conn_t *conn) noexcept
cdef void conn_end(Connections table, conn_t *conn, end_cause_t cause, int error, bint reset) noexcept
cdef void conn_expire(Connections table, uint32_t index) noexcept
cdef void conn_release(Connections table, conn_t *conn) noexcept

cdef inline bint conn_is_readable(const conn_t *conn) noexcept nogil:
    """True while the application wants input and there may be some."""
    return conn.state == CONN_OPEN and not (conn.flags & (CONN_EOF | CONN_PAUSED_BY_USER | CONN_PAUSED_BY_WRITES))
