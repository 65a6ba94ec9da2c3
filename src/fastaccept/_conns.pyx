"""Connections: writing, flow control, closing and deadlines of one connection (its states: _conns.pxd).

Nothing here calls back into the application or waits: functions change the record, talk to the backend, and leave what the
application has to hear to the loop, by the attention list.
"""
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.ref cimport Py_XDECREF
from libc.errno cimport EAGAIN, EINTR, ENOMEM
from libc.stdint cimport INT64_MAX
from libc.string cimport memset
from fastaccept._buffers cimport (
    SLICES_MAX, io_slice_t, outq_append, outq_consume, outq_drop, outq_open, outq_pool_clear, outq_slices,
)
from fastaccept._slots cimport SLOT_NONE, slot_token, slots_at, slots_clear, slots_init
from fastaccept._timers cimport timers_cancel, timers_clear, timers_due_ms, timers_init, timers_set

cdef enum:
    # Input dropped in one go while a connection lingers; what is beyond comes with the next turn.
    DISCARD_BYTES = 65536
    # How often a lingering connection looks whether the peer has acknowledged all; no system tells of it by itself.
    LINGER_CHECK_MS = 20
    # Where the system does not even answer that (Windows before 10, version 1703; Wine): closed once nothing has come for so
    # long since our FIN. What was sent is delivered by the system also after the socket was closed; only input that comes
    # later would turn that into a reset. So this has to cover what the peer had under way when it met our FIN: a segment that
    # was lost is sent again after 1 s at first (RFC 6298, 2.1), and needs a round trip then.
    LINGER_QUIET_MS = 2000


cdef class Connections:
    def __cinit__(self, Backend backend not None):
        self.backend = backend
        slots_init(&self.slots, sizeof(conn_t))
        timers_init(&self.timers)
        memset(&self.stats, 0, sizeof(stats_t))
        self.first_attention = self.last_attention = SLOT_NONE

    def __dealloc__(self):
        slots_clear(&self.slots)
        timers_clear(&self.timers)
        outq_pool_clear(&self.pool)


# ---- life of a record


cdef inline void _set_state(conn_t *conn, conn_state_t state) noexcept:
    """The only writer of the state. States only go forward."""
    assert state >= conn.state
    conn.state = state


cdef void conn_init(Connections table, conn_t *conn, conn_state_t state, unsigned int flags) noexcept:
    """A zeroed record becomes a connection."""
    conn.in_at_ms = conn.out_at_ms = <uint32_t>table.now_ms
    conn.next_attention = SLOT_NONE
    conn.flags = flags | CONN_FRESH
    _set_state(conn, state)
    _set_deadline(table, conn)


cdef void conn_connected(Connections table, conn_t *conn) noexcept:
    conn.in_at_ms = conn.out_at_ms = <uint32_t>table.now_ms
    _set_state(conn, CONN_OPEN)
    _set_deadline(table, conn)


cdef void conn_close(Connections table, conn_t *conn) noexcept:
    """Send what is left, then close. Nothing more is read for the application."""
    if conn.state == CONN_CONNECTING:
        conn_end(table, conn, END_BY_USER, 0, False)
    elif conn.state == CONN_OPEN:
        conn.out_at_ms = <uint32_t>table.now_ms
        _set_state(conn, CONN_FLUSHING)
        conn_attend(table, conn)


cdef void conn_end(Connections table, conn_t *conn, end_cause_t cause, int error, bint reset) noexcept:
    """It is over; the loop will give the socket back and tell the application."""
    if conn.state == CONN_ENDED:
        return
    conn.cause = cause
    conn.error = error
    if reset:
        conn.flags |= CONN_RESET
    _set_state(conn, CONN_ENDED)
    timers_cancel(&table.timers, conn.slot.index)
    conn_attend(table, conn)


cdef void conn_release(Connections table, conn_t *conn) noexcept:
    """IO_CLOSED: the system has let go of it, so what was pinned for it can go. The slot is the caller's to free."""
    cdef PyObject *handle = conn.handle
    if conn.out != NULL:
        table.stats.write_buffered_bytes -= conn.out.bytes
        outq_drop(&table.pool, conn.out)
        conn.out = NULL
    conn.handle = NULL
    Py_XDECREF(handle)               # taken in the loop's _give_back()


# ---- the attention list: connections that the loop has to see to before it waits again


cdef void conn_attend(Connections table, conn_t *conn) noexcept:
    if conn.flags & CONN_ATTENDED:
        return
    conn.flags |= CONN_ATTENDED
    conn.next_attention = SLOT_NONE
    if table.first_attention == SLOT_NONE:
        table.first_attention = conn.slot.index
    else:
        (<conn_t *>slots_at(&table.slots, table.last_attention)).next_attention = conn.slot.index
    table.last_attention = conn.slot.index


cdef conn_t *conn_next_attention(Connections table) noexcept:
    """Take the first one off the list; NULL: there is none. Its slot can't have been freed: IO_CLOSED follows attention."""
    cdef conn_t *conn
    if table.first_attention == SLOT_NONE:
        return NULL
    conn = <conn_t *>slots_at(&table.slots, table.first_attention)
    table.first_attention = conn.next_attention
    conn.flags &= ~<unsigned int>CONN_ATTENDED
    return conn


# ---- writing


cdef bint conn_write(Connections table, conn_t *conn, bytes data) except -1:
    """Queue data; the loop sends it after the callback, together with what else that writes. True: go on writing."""
    if conn.out == NULL:
        conn.out = outq_open(&table.pool)
        if conn.out == NULL:
            raise MemoryError
        conn.out_at_ms = <uint32_t>table.now_ms
    elif conn.out.bytes >= table.max_write_buffer_bytes or table.stats.write_buffered_bytes >= table.max_write_buffer_total_bytes:
        table.stats.write_overflows += 1
        conn_end(table, conn, END_BY_OVERFLOW, 0, True)
        return False
    outq_append(conn.out, data)
    table.stats.write_buffered_bytes += PyBytes_GET_SIZE(data)
    conn_attend(table, conn)
    if conn.out.bytes > table.high_water_bytes:
        _flush(table, conn)          # a large write goes out now, so that False means that the peer is slow
        if conn.out != NULL and conn.out.bytes > table.high_water_bytes:
            conn.flags |= CONN_DRAIN_OWED
            return False
    return conn.state != CONN_ENDED


cdef void _flush(Connections table, conn_t *conn) noexcept:
    """Offer what waits to the system, until it takes less than it was offered."""
    cdef io_slice_t slices[SLICES_MAX]
    cdef size_t offered
    cdef int64_t sent
    cdef int n
    while conn.out != NULL and not (conn.flags & CONN_SENDING) and conn.state != CONN_ENDED:
        n = outq_slices(conn.out, slices, SLICES_MAX, &offered)
        sent = table.backend.send(slot_token(&conn.slot), slices, n)
        if sent < 0:
            conn_end(table, conn, END_BY_ERROR, <int>-sent, False)
            return
        if <size_t>sent < offered:
            conn.flags |= CONN_SENDING
            _set_deadline(table, conn)
        _taken(table, conn, sent)


cdef void _taken(Connections table, conn_t *conn, int64_t n) noexcept:
    """The system has taken n more bytes."""
    if n == 0:
        return
    conn.bytes_sent += n
    conn.out_at_ms = <uint32_t>table.now_ms
    table.stats.bytes_sent += n
    table.stats.write_buffered_bytes -= n
    if <size_t>n < conn.out.bytes:
        outq_consume(conn.out, n)
    else:
        outq_drop(&table.pool, conn.out)
        conn.out = NULL


cdef void conn_sent(Connections table, conn_t *conn, int64_t n) noexcept:
    """IO_SENT."""
    conn.flags &= ~<unsigned int>CONN_SENDING
    if conn.out != NULL:
        _taken(table, conn, n)
    conn_attend(table, conn)


# ---- what the loop does for a connection that needs attention


cdef void conn_advance(Connections table, conn_t *conn) noexcept:
    """Send what waits, then do what was asked for once all is sent; then watch for input, or stop to."""
    _flush(table, conn)
    if conn.state == CONN_ENDED:
        return
    if conn.out == NULL and not (conn.flags & CONN_SENDING):
        if conn.state == CONN_FLUSHING:
            _finish(table, conn)
        elif conn.flags & CONN_SHUT_ASKED and not (conn.flags & CONN_SHUT):
            _send_fin(table, conn)
    _apply_reading(table, conn)
    if conn.state == CONN_FLUSHING or conn.state == CONN_LINGERING:
        _set_deadline(table, conn)


cdef void _send_fin(Connections table, conn_t *conn) noexcept:
    cdef int done
    conn.flags |= CONN_SHUT
    done = table.backend.shutdown_write(slot_token(&conn.slot))
    if done < 0:
        conn_end(table, conn, END_BY_ERROR, -done, False)


cdef void _finish(Connections table, conn_t *conn) noexcept:
    """All is sent and close() was called: close now if nothing can get lost by it, else linger."""
    if conn.flags & CONN_EOF:
        conn_end(table, conn, END_BY_USER, 0, False)
        return
    _set_state(conn, CONN_LINGERING)
    conn.out_at_ms = <uint32_t>table.now_ms
    conn_discard_input(table, conn)
    if conn.state == CONN_LINGERING and table.backend.unsent(slot_token(&conn.slot)) == 0:
        conn_end(table, conn, END_BY_USER, 0, False)
    if conn.state == CONN_LINGERING and not (conn.flags & CONN_SHUT):
        _send_fin(table, conn)


cdef void conn_discard_input(Connections table, conn_t *conn) noexcept:
    """Drop what a lingering connection still receives; its end ends the lingering."""
    cdef char dropped[DISCARD_BYTES]
    cdef int64_t n = table.backend.recv(slot_token(&conn.slot), dropped, DISCARD_BYTES)
    if n > 0:
        conn.in_at_ms = <uint32_t>table.now_ms
        table.stats.bytes_received += n
    elif n == 0:
        conn_end(table, conn, END_BY_USER, 0, False)
    elif n != -EAGAIN and n != -EINTR:
        conn_end(table, conn, END_BY_ERROR, <int>-n, False)


cdef void _apply_reading(Connections table, conn_t *conn) noexcept:
    """Reading pauses while more than the high-water mark waits for a slow peer, so that an echo stays bounded."""
    cdef bint wanted
    cdef int done
    if conn.out != NULL and conn.out.bytes > table.high_water_bytes:
        conn.flags |= CONN_PAUSED_BY_WRITES
    elif conn.out == NULL or conn.out.bytes <= table.low_water_bytes:
        conn.flags &= ~<unsigned int>CONN_PAUSED_BY_WRITES
    wanted = conn_is_readable(conn) or conn.state == CONN_LINGERING
    if conn.state == CONN_ENDED or (wanted == ((conn.flags & CONN_READING) != 0) and not (conn.flags & CONN_FRESH)):
        return
    conn.flags &= ~<unsigned int>(CONN_FRESH | CONN_READING)
    if not wanted:
        table.backend.read_stop(slot_token(&conn.slot))
        return
    conn.flags |= CONN_READING
    done = table.backend.read_start(slot_token(&conn.slot))
    if done < 0:
        conn_end(table, conn, END_BY_ERROR, -done, True)


# ---- deadlines


cdef inline int64_t _after(Connections table, uint32_t since_ms, int64_t timeout_ms) noexcept:
    """When a timeout that counts from a 32-bit time is due. The clock's low 32 bits come round every 49 days."""
    return table.now_ms - <uint32_t>(<uint32_t>table.now_ms - since_ms) + timeout_ms


cdef int64_t _next_deadline(Connections table, conn_t *conn, end_cause_t *cause) noexcept:
    """The earliest deadline that holds for a connection as it is now, and what it would end it by."""
    cdef timeouts_t *timeouts = &table.timeouts
    cdef int64_t due = INT64_MAX
    if conn.state == CONN_CONNECTING:
        cause[0] = END_BY_CONNECT
        return _after(table, conn.out_at_ms, timeouts.connect_ms) if timeouts.connect_ms else INT64_MAX
    if conn.state != CONN_OPEN:
        cause[0] = END_BY_CLOSE
        return _after(table, conn.out_at_ms, timeouts.close_ms) if timeouts.close_ms else INT64_MAX
    if timeouts.idle_ms:
        cause[0] = END_BY_IDLE
        due = _after(table, max_time(conn.in_at_ms, conn.out_at_ms), timeouts.idle_ms)
    if timeouts.first_byte_ms and conn.bytes_received == 0 and not (conn.flags & CONN_OUTGOING):
        if _after(table, conn.in_at_ms, timeouts.first_byte_ms) < due:
            cause[0] = END_BY_FIRST_BYTE
            due = _after(table, conn.in_at_ms, timeouts.first_byte_ms)
    if timeouts.write_stall_ms and conn.flags & CONN_SENDING:
        if _after(table, conn.out_at_ms, timeouts.write_stall_ms) < due:
            cause[0] = END_BY_WRITE_STALL
            due = _after(table, conn.out_at_ms, timeouts.write_stall_ms)
    return due


cdef inline uint32_t max_time(uint32_t a, uint32_t b) noexcept:
    """The later of two 32-bit times."""
    return a if <int32_t>(a - b) > 0 else b


cdef void _set_deadline(Connections table, conn_t *conn) noexcept:
    """Make sure that the timer is set to no later than the deadline. Bytes that move push the deadline back without touching the
    timer; that is found out when it fires."""
    cdef end_cause_t cause = END_BY_USER
    cdef int64_t due = _next_deadline(table, conn, &cause)
    if conn.state == CONN_LINGERING:
        due = min(due, table.now_ms + LINGER_CHECK_MS)
    if due < timers_due_ms(&table.timers, conn.slot.index) and timers_set(&table.timers, conn.slot.index, due) < 0:
        conn_end(table, conn, END_BY_ERROR, ENOMEM, True)


cdef int64_t _linger_until(Connections table, conn_t *conn) noexcept:
    """When a lingering connection may be closed, as far as is known: now if the peer has it all, else a time to look again."""
    cdef int64_t unsent = table.backend.unsent(slot_token(&conn.slot))
    if unsent < 0:
        return _after(table, max_time(conn.in_at_ms, conn.out_at_ms), LINGER_QUIET_MS)
    return table.now_ms + (LINGER_CHECK_MS if unsent else 0)


cdef void conn_expire(Connections table, uint32_t index) noexcept:
    """A timer fired."""
    cdef conn_t *conn = <conn_t *>slots_at(&table.slots, index)
    cdef end_cause_t cause = END_BY_USER
    cdef int64_t due, look = INT64_MAX
    if conn.state == CONN_LINGERING:
        look = _linger_until(table, conn)
        if look <= table.now_ms:
            conn_end(table, conn, END_BY_USER, 0, False)
            return
    due = min(_next_deadline(table, conn, &cause), look)
    if due > table.now_ms:
        if due != INT64_MAX and timers_set(&table.timers, index, due) < 0:
            conn_end(table, conn, END_BY_ERROR, ENOMEM, True)
        return
    table.stats.timeouts += 1
    # An idle peer is told with a FIN; one that does not take its bytes would not read that either.
    conn_end(table, conn, cause, 0, cause != END_BY_IDLE and conn.state != CONN_LINGERING)
