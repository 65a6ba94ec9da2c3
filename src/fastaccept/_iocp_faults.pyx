"""Failures for tests: calls of an IocpBackend that fail by a script, with real sockets around them.

    faults = Faults(backend)
    faults.fail("accepted", 1450, after=1)      # the second AcceptEx from now on ends with ERROR_NO_SYSTEM_RESOURCES

Each function here stands in the backend's table in place of the real one, and makes the real call unless it is its turn to fail.
"""
from libc.stdint cimport uint32_t
from fastaccept._iocp cimport IocpBackend
from fastaccept._platform cimport win32 as sys
from fastaccept._platform.win32_calls cimport (
    CALL_ACCEPT, CALL_ACCEPTED, CALL_ASSOCIATE, CALL_CONNECT, CALL_LISTEN, CALL_RECEIVE, CALL_SEND, CALL_SOCKET, CALL_TCP_STATE,
    CALL_UPDATE, call_accept, call_accepted, call_associate, call_connect, call_listen, call_open_socket, call_receive, call_send,
    call_tcp_state, call_update, calls_t,
)

_CALLS = {
    "socket": CALL_SOCKET, "accept": CALL_ACCEPT, "accepted": CALL_ACCEPTED, "update": CALL_UPDATE, "listen": CALL_LISTEN,
    "associate": CALL_ASSOCIATE, "receive": CALL_RECEIVE, "send": CALL_SEND, "connect": CALL_CONNECT,
    "tcp_state": CALL_TCP_STATE,
}


cdef int _fault(calls_t *calls, int kind) noexcept nogil:
    calls.made[kind] += 1
    if calls.fault_after[kind] > 0:
        calls.fault_after[kind] -= 1
        return 0
    if calls.fault_times[kind] == 0:
        return 0
    calls.fault_times[kind] -= 1
    return calls.fault_code[kind]


cdef int _open_socket(calls_t *calls, int family, sys.SOCKET *made) noexcept nogil:
    made[0] = sys.INVALID_SOCKET
    return _fault(calls, CALL_SOCKET) or call_open_socket(calls, family, made)


cdef int _accept(calls_t *calls, sys.SOCKET listener, sys.SOCKET accepted, void *addresses, sys.OVERLAPPED *overlapped) noexcept nogil:
    return _fault(calls, CALL_ACCEPT) or call_accept(calls, listener, accepted, addresses, overlapped)


cdef int _accepted(calls_t *calls, sys.SOCKET listener, sys.OVERLAPPED *overlapped) noexcept nogil:
    cdef int code = call_accepted(calls, listener, overlapped)
    return code or _fault(calls, CALL_ACCEPTED)      # a cancelled accept is no occasion


cdef int _update(calls_t *calls, sys.SOCKET listener, sys.SOCKET accepted) noexcept nogil:
    return _fault(calls, CALL_UPDATE) or call_update(calls, listener, accepted)


cdef int _listen(calls_t *calls, sys.SOCKET listener, int backlog) noexcept nogil:
    return _fault(calls, CALL_LISTEN) or call_listen(calls, listener, backlog)


cdef int _associate(calls_t *calls, sys.HANDLE port, sys.SOCKET s, sys.ULONG_PTR key) noexcept nogil:
    return _fault(calls, CALL_ASSOCIATE) or call_associate(calls, port, s, key)


cdef int _receive(calls_t *calls, sys.SOCKET s, sys.WSABUF *buffer, sys.OVERLAPPED *overlapped, sys.DWORD *taken) noexcept nogil:
    return _fault(calls, CALL_RECEIVE) or call_receive(calls, s, buffer, overlapped, taken)


cdef int _send(calls_t *calls, sys.SOCKET s, sys.WSABUF *buffers, int n, sys.OVERLAPPED *overlapped, sys.DWORD *taken) noexcept nogil:
    return _fault(calls, CALL_SEND) or call_send(calls, s, buffers, n, overlapped, taken)


cdef int _connect(calls_t *calls, sys.SOCKET s, const sys.sockaddr *address, int length, sys.OVERLAPPED *overlapped) noexcept nogil:
    return _fault(calls, CALL_CONNECT) or call_connect(calls, s, address, length, overlapped)


cdef int _tcp_state(calls_t *calls, sys.SOCKET s) noexcept nogil:
    """No failure: what a system that can tell would say."""
    return _fault(calls, CALL_TCP_STATE) or call_tcp_state(calls, s)


cdef class Faults:
    """Takes over a backend's table of calls. Threads: while its loop does not run, or in it."""
    cdef IocpBackend backend

    def __init__(self, IocpBackend backend not None):
        cdef calls_t *calls = &backend.calls
        self.backend = backend
        calls.open_socket = _open_socket
        calls.accept = _accept
        calls.accepted = _accepted
        calls.update = _update
        calls.listen = _listen
        calls.associate = _associate
        calls.receive = _receive
        calls.send = _send
        calls.connect = _connect
        calls.tcp_state = _tcp_state

    def fail(self, str call not None, int code, uint32_t after=0, uint32_t times=1):
        """Let `times` calls of a kind fail with a code of Winsock or of the system, once `after` more have been made."""
        cdef int kind = _CALLS[call]
        self.backend.calls.fault_code[kind] = code
        self.backend.calls.fault_after[kind] = after
        self.backend.calls.fault_times[kind] = times

    def made(self, str call not None):
        """Calls of a kind since the take-over."""
        return self.backend.calls.made[<int>_CALLS[call]]

    @property
    def posted(self):
        """AcceptEx calls that have not come back."""
        return self.backend.accepting.n_posted

    @property
    def held(self):
        """Clients that were taken and wait for room."""
        return self.backend.accepting.n_held
