# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Connection: the methods that applications call. Each checks that it may be called, notes what is wanted in the record, and leaves
it to the loop."""
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from fastaccept._backend cimport OPTION_KEEPALIVE, OPTION_NODELAY, address_t, address_to_python
from fastaccept._conns cimport (
    CONN_CLOSE_OWED, CONN_DRAIN_OWED, CONN_ENDED, CONN_OPEN, CONN_PAUSED_BY_USER, CONN_SHUT_ASKED, END_BY_USER, conn_attend,
    conn_close, conn_end, conn_write,
)
from fastaccept._slots cimport slots_find

from fastaccept.errors import ConnectionClosed, os_error


cdef inline conn_t *_find(Connection handle) except? NULL:
    """NULL: it has ended. Raises RuntimeError in a wrong thread."""
    handle.table.check_thread()
    return <conn_t *>slots_find(&handle.table.slots, handle.token)


cdef inline conn_t *_writable(Connection handle) except? NULL:
    """NULL: it failed while this callback ran; on_close will say how. Raises ConnectionClosed."""
    cdef conn_t *conn = _find(handle)
    if conn == NULL:
        raise ConnectionClosed("the connection is closed")
    if conn.state == CONN_ENDED and conn.flags & CONN_CLOSE_OWED:
        return NULL
    if conn.state > CONN_OPEN:
        raise ConnectionClosed("close() was called on this connection")
    if conn.flags & CONN_SHUT_ASKED:
        raise ConnectionClosed("shutdown_write() was called on this connection")
    return conn


cdef class Connection:
    """One peer. Made by the server and given to callbacks; not by hand, nor by a subclass.

    The same object comes with each callback while the application keeps a reference to it or has set `context`; otherwise it
    may be a new one each time, so that an idle connection costs no Python object.

    Threads: the loop's thread only, except for repr(); others use Server.call_soon_threadsafe().
    """

    def __init__(self):
        raise TypeError("a Connection is made by a Server")

    def write(self, data, /):
        """Send bytes, in order, as fast as the peer takes them.

        Data is sent when the running callback has returned, or the next few have, where several peers have sent at once; in one system
        call with whatever else was written to this connection meanwhile. What the system does not take waits in memory. Anything but
        exact `bytes` is copied.

        Args:
            data: bytes-like, any length, in bytes; by position only.
        Returns:
            bool: True while no more than `Limits.write_high_water` bytes wait; False above it: stop writing until on_drain. Also
            False once the connection has failed in this same callback.
        Raises:
            ConnectionClosed: after on_close, close() or shutdown_write().
            TypeError: data is not bytes-like.
        Errors: a connection with `Limits.max_write_buffer` bytes waiting, or a server with `max_write_buffer_total`, is over its
            measure: the next write aborts the connection, and on_close gets WriteBufferFull.
        Threads: the loop's.
        """
        cdef conn_t *conn = _writable(self)
        cdef bytes item = data if PyBytes_CheckExact(data) else bytes(memoryview(data))
        if conn == NULL:
            return False
        if PyBytes_GET_SIZE(item) == 0:
            return not (conn.flags & CONN_DRAIN_OWED)
        return conn_write(self.table, conn, item)

    def writelines(self, parts):
        """write() each of an iterable's parts; they leave in one system call where they fit. Returns as the last write() does."""
        cdef bint go_on = True
        for part in parts:
            go_on = self.write(part)
        return go_on

    def close(self):
        """Send what was written, then close. Reading stops at once, and on_close follows when all is sent and the peer has it.

        A peer that takes nothing for `Timeouts.close` seconds is aborted, and on_close gets the TimeoutError. Closing a closed
        connection does nothing. Threads: the loop's.
        """
        cdef conn_t *conn = _find(self)
        if conn != NULL:
            conn_close(self.table, conn)

    def abort(self):
        """Close now with a reset (RST); what was not sent is dropped. Threads: the loop's."""
        cdef conn_t *conn = _find(self)
        if conn != NULL:
            conn_end(self.table, conn, END_BY_USER, 0, True)

    def shutdown_write(self):
        """Send what was written, then a FIN; reading goes on (half-close). Threads: the loop's.

        Raises:
            ConnectionClosed: after on_close or close().
        """
        cdef conn_t *conn = _find(self)
        if conn != NULL and conn.state == CONN_OPEN and conn.flags & CONN_SHUT_ASKED:
            return
        conn = _writable(self)
        if conn != NULL:
            conn.flags |= CONN_SHUT_ASKED
            conn_attend(self.table, conn)

    def pause_reading(self):
        """Call on_data no more until resume_reading(); the peer's bytes wait in the system, and one read's worth in the server if that was
        received before. Threads: the loop's."""
        cdef conn_t *conn = _find(self)
        if conn != NULL:
            conn.flags |= CONN_PAUSED_BY_USER
            conn_attend(self.table, conn)

    def resume_reading(self):
        """Undo pause_reading(). A pause because the peer does not read stays until it does. Threads: the loop's."""
        cdef conn_t *conn = _find(self)
        if conn != NULL:
            conn.flags &= ~<unsigned int>CONN_PAUSED_BY_USER
            conn_attend(self.table, conn)

    @property
    def peername(self):
        """The peer's address as socket.getpeername() gives it; None once closed."""
        cdef conn_t *conn = _find(self)
        return address_to_python(&conn.peer) if conn != NULL else None

    @property
    def sockname(self):
        """Our address as socket.getsockname() gives it; None once closed."""
        cdef address_t address
        if _find(self) == NULL or self.table.backend.local_address(self.token, &address) < 0:
            return None
        return address_to_python(&address)

    @property
    def is_closing(self):
        """True once close(), abort() or an error has begun to end it, and for ever after."""
        cdef conn_t *conn = _find(self)
        return conn == NULL or conn.state > CONN_OPEN

    @property
    def bytes_received(self):
        """Bytes given to on_data so far; 0 once closed."""
        cdef conn_t *conn = _find(self)
        return conn.bytes_received if conn != NULL else 0

    @property
    def bytes_sent(self):
        """Bytes that the system has taken so far; 0 once closed."""
        cdef conn_t *conn = _find(self)
        return conn.bytes_sent if conn != NULL else 0

    @property
    def write_buffer_size(self):
        """Bytes written that the system has not taken yet."""
        cdef conn_t *conn = _find(self)
        return conn.out.bytes if conn != NULL and conn.out != NULL else 0

    def set_option(self, name, value):
        """Set a socket option.

        Args:
            name: "nodelay" (TCP_NODELAY, tcp(7); on by default) or "keepalive" (SO_KEEPALIVE, socket(7); off by default).
            value: bool.
        Raises:
            ValueError: another name. ConnectionClosed: after on_close. OSError: the system's answer.
        """
        options = {"nodelay": OPTION_NODELAY, "keepalive": OPTION_KEEPALIVE}
        if name not in options:
            raise ValueError(f"name is {name!r}; allowed are {', '.join(map(repr, options))}")
        if _find(self) == NULL:
            raise ConnectionClosed("the connection is closed")
        cdef int done = self.table.backend.set_option(self.token, options[name], bool(value))
        if done < 0:
            raise os_error(-done)

    def get_extra_info(self, name, default=None):
        """Return "peername", "sockname" or "fileno" (int, for reading options only); `default` for anything else or once closed."""
        if name == "peername" or name == "sockname":
            value = getattr(self, name)
            return default if value is None else value
        if name == "fileno" and _find(self) != NULL:
            return self.table.backend.handle_of(self.token)
        return default

    def __repr__(self):
        cdef conn_t *conn = <conn_t *>slots_find(&self.table.slots, self.token)
        if conn == NULL:
            return "<fastaccept.Connection closed>"
        state = ("connecting", "open", "flushing", "lingering", "ended")[conn.state]
        return f"<fastaccept.Connection {state} peer={address_to_python(&conn.peer)}>"
