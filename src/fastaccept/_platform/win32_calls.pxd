"""The calls that can fail for want of something, as a table: each answers 0 or the code of Winsock or of the system.

_iocp makes these calls through the table of its backend and no other way, so that a test can put failures in their place, one
call at a time, with real sockets around them (_iocp_faults).
"""
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy, memset
from fastaccept._backend cimport FAMILY_INET, FAMILY_INET6, FAMILY_NONE, address_t
from fastaccept._buffers cimport io_slice_t
from fastaccept._platform cimport win32 as sys

cdef enum:
    PENDING = 997                    # ERROR_IO_PENDING: its completion will come
    ADDRESS_BYTES = 144              # AcceptEx wants 16 more than the largest address
    N_CALLS = 10

cdef enum call_t:
    CALL_SOCKET
    CALL_ACCEPT
    CALL_ACCEPTED                    # what the completion of an accept says
    CALL_UPDATE
    CALL_LISTEN
    CALL_ASSOCIATE
    CALL_RECEIVE
    CALL_SEND
    CALL_CONNECT
    CALL_TCP_STATE

cdef struct calls_t:
    int (*open_socket)(calls_t *calls, int family, sys.SOCKET *made) noexcept nogil
    int (*accept)(calls_t *calls, sys.SOCKET listener, sys.SOCKET accepted, void *addresses, sys.OVERLAPPED *overlapped) noexcept nogil
    int (*accepted)(calls_t *calls, sys.SOCKET listener, sys.OVERLAPPED *overlapped) noexcept nogil
    int (*update)(calls_t *calls, sys.SOCKET listener, sys.SOCKET accepted) noexcept nogil
    int (*listen)(calls_t *calls, sys.SOCKET listener, int backlog) noexcept nogil
    int (*associate)(calls_t *calls, sys.HANDLE port, sys.SOCKET s, sys.ULONG_PTR key) noexcept nogil
    int (*receive)(calls_t *calls, sys.SOCKET s, sys.WSABUF *buffer, sys.OVERLAPPED *overlapped, sys.DWORD *taken) noexcept nogil
    int (*send)(calls_t *calls, sys.SOCKET s, sys.WSABUF *buffers, int n, sys.OVERLAPPED *overlapped, sys.DWORD *taken) noexcept nogil
    int (*connect)(calls_t *calls, sys.SOCKET s, const sys.sockaddr *address, int length, sys.OVERLAPPED *overlapped) noexcept nogil
    int (*tcp_state)(calls_t *calls, sys.SOCKET s) noexcept nogil     # TCPSTATE_...; -1 = the system does not tell
    # What WSAIoctl gave for them
    sys.LPFN_ACCEPTEX accept_ex
    sys.LPFN_CONNECTEX connect_ex
    sys.LPFN_GETACCEPTEXSOCKADDRS get_addresses
    # For a test
    int32_t fault_code[N_CALLS]      # what the calls of a kind answer instead
    uint32_t fault_after[N_CALLS]    # once so many more have been made
    uint32_t fault_times[N_CALLS]    # for so many calls
    uint32_t made[N_CALLS]           # calls so far


cdef inline int call_open_socket(calls_t *calls, int family, sys.SOCKET *made) noexcept nogil:
    made[0] = sys.WSASocketW(family, sys.SOCK_STREAM, sys.IPPROTO_TCP, NULL, 0,
                             sys.WSA_FLAG_OVERLAPPED | sys.WSA_FLAG_NO_HANDLE_INHERIT)
    return 0 if made[0] != sys.INVALID_SOCKET else sys.WSAGetLastError()

cdef inline int call_accept(calls_t *calls, sys.SOCKET listener, sys.SOCKET accepted, void *addresses,
                            sys.OVERLAPPED *overlapped) noexcept nogil:
    cdef sys.DWORD received
    memset(overlapped, 0, sizeof(sys.OVERLAPPED))
    if calls.accept_ex(listener, accepted, addresses, 0, ADDRESS_BYTES, ADDRESS_BYTES, &received, overlapped):
        return 0
    return sys.WSAGetLastError()

cdef inline int call_accepted(calls_t *calls, sys.SOCKET listener, sys.OVERLAPPED *overlapped) noexcept nogil:
    return overlapped_error(listener, overlapped)

cdef inline int call_update(calls_t *calls, sys.SOCKET listener, sys.SOCKET accepted) noexcept nogil:
    return set_option(accepted, sys.SOL_SOCKET, sys.SO_UPDATE_ACCEPT_CONTEXT, &listener, sizeof(listener))

cdef inline int call_listen(calls_t *calls, sys.SOCKET listener, int backlog) noexcept nogil:
    """Above 200 Windows takes a backlog as a negative number (SOMAXCONN_HINT), and cuts a positive one down to 200."""
    return 0 if sys.listen(listener, -backlog if backlog > 200 else backlog) == 0 else sys.WSAGetLastError()

cdef inline int call_associate(calls_t *calls, sys.HANDLE port, sys.SOCKET s, sys.ULONG_PTR key) noexcept nogil:
    return 0 if sys.CreateIoCompletionPort(<sys.HANDLE>s, port, key, 0) != NULL else <int>sys.GetLastError()

cdef inline int call_receive(calls_t *calls, sys.SOCKET s, sys.WSABUF *buffer, sys.OVERLAPPED *overlapped, sys.DWORD *taken) noexcept nogil:
    cdef sys.DWORD flags = 0
    if overlapped != NULL:
        memset(overlapped, 0, sizeof(sys.OVERLAPPED))
    return 0 if sys.WSARecv(s, buffer, 1, taken, &flags, overlapped, NULL) == 0 else sys.WSAGetLastError()

cdef inline int call_send(calls_t *calls, sys.SOCKET s, sys.WSABUF *buffers, int n, sys.OVERLAPPED *overlapped,
                          sys.DWORD *taken) noexcept nogil:
    if overlapped != NULL:
        memset(overlapped, 0, sizeof(sys.OVERLAPPED))
    return 0 if sys.WSASend(s, buffers, n, taken, 0, overlapped, NULL) == 0 else sys.WSAGetLastError()

cdef inline int call_connect(calls_t *calls, sys.SOCKET s, const sys.sockaddr *address, int length,
                             sys.OVERLAPPED *overlapped) noexcept nogil:
    cdef sys.DWORD sent
    memset(overlapped, 0, sizeof(sys.OVERLAPPED))
    return 0 if calls.connect_ex(s, address, length, NULL, 0, &sent, overlapped) else sys.WSAGetLastError()

cdef inline int call_tcp_state(calls_t *calls, sys.SOCKET s) noexcept nogil:
    cdef sys.DWORD version = 0, returned = 0
    cdef sys.fa_tcp_info_v0 info
    if sys.WSAIoctl(s, sys.SIO_TCP_INFO, &version, sizeof(version), &info, sizeof(info), &returned, NULL, NULL) != 0:
        return -1
    return <int>info.State if returned >= sizeof(info.State) else -1

cdef inline void calls_init(calls_t *calls) noexcept nogil:
    memset(calls, 0, sizeof(calls_t))
    calls.open_socket = call_open_socket
    calls.accept = call_accept
    calls.accepted = call_accepted
    calls.update = call_update
    calls.listen = call_listen
    calls.associate = call_associate
    calls.receive = call_receive
    calls.send = call_send
    calls.connect = call_connect
    calls.tcp_state = call_tcp_state

cdef inline int _load(sys.SOCKET s, const sys.GUID *name, void *function) noexcept nogil:
    cdef sys.DWORD returned
    if sys.WSAIoctl(s, sys.SIO_GET_EXTENSION_FUNCTION_POINTER, <void *>name, sizeof(sys.GUID), function, sizeof(void *), &returned, NULL, NULL):
        return sys.WSAGetLastError()
    return 0

cdef inline int calls_load(calls_t *calls, sys.SOCKET s) noexcept nogil:
    """Ask the socket's provider for the functions that are no part of ws2_32."""
    cdef int code = _load(s, &sys.fa_acceptex_id, &calls.accept_ex)
    code = code or _load(s, &sys.fa_connectex_id, &calls.connect_ex)
    return code or _load(s, &sys.fa_getacceptexsockaddrs_id, &calls.get_addresses)

# ---- what several calls have in common

cdef inline int overlapped_error(sys.SOCKET s, sys.OVERLAPPED *overlapped) noexcept nogil:
    """The system's code of a call that has completed. It is read from the OVERLAPPED: the handle may be closed already."""
    cdef sys.DWORD count
    return 0 if sys.GetOverlappedResult(<sys.HANDLE>s, overlapped, &count, False) else <int>sys.GetLastError()

cdef inline int set_option(sys.SOCKET s, int level, int option, const void *value, int length) noexcept nogil:
    return 0 if sys.setsockopt(s, level, option, <const char *>value, length) == 0 else sys.WSAGetLastError()

cdef inline int set_int(sys.SOCKET s, int level, int option, int value) noexcept nogil:
    return set_option(s, level, option, &value, sizeof(int))

cdef inline int get_int(sys.SOCKET s, int level, int option) noexcept nogil:
    """A socket option's value, 0 if it can't be had."""
    cdef int value = 0
    cdef int length = sizeof(int)
    sys.getsockopt(s, level, option, <char *>&value, &length)
    return value

cdef inline int set_nonblocking(sys.SOCKET s) noexcept nogil:
    cdef unsigned long on = 1
    return 0 if sys.ioctlsocket(s, sys.FIONBIO, &on) == 0 else sys.WSAGetLastError()

cdef inline void close_with_reset(sys.SOCKET s) noexcept nogil:
    cdef sys.linger_t reset
    reset.l_onoff = 1
    reset.l_linger = 0
    set_option(s, sys.SOL_SOCKET, sys.SO_LINGER, &reset, sizeof(reset))
    sys.closesocket(s)

cdef inline void address_from_system(const sys.sockaddr *name, address_t *address) noexcept nogil:
    cdef const sys.sockaddr_in *inet = <const sys.sockaddr_in *>name
    cdef const sys.sockaddr_in6 *inet6 = <const sys.sockaddr_in6 *>name
    memset(address, 0, sizeof(address_t))
    if name == NULL:
        return
    if name.sa_family == sys.AF_INET:
        address.family = FAMILY_INET
        address.port = sys.ntohs(inet.sin_port)
        memcpy(address.ip, &inet.sin_addr, 4)
    elif name.sa_family == sys.AF_INET6:
        address.family = FAMILY_INET6
        address.port = sys.ntohs(inet6.sin6_port)
        address.scope = inet6.sin6_scope_id
        memcpy(address.ip, &inet6.sin6_addr, 16)

cdef inline int address_to_system(const address_t *address, sys.sockaddr_storage *storage) noexcept nogil:
    cdef sys.sockaddr_in *inet = <sys.sockaddr_in *>storage
    cdef sys.sockaddr_in6 *inet6 = <sys.sockaddr_in6 *>storage
    memset(storage, 0, sizeof(sys.sockaddr_storage))
    if address.family == FAMILY_INET:
        inet.sin_family = sys.AF_INET
        inet.sin_port = sys.htons(address.port)
        memcpy(&inet.sin_addr, address.ip, 4)
        return sizeof(sys.sockaddr_in)
    inet6.sin6_family = sys.AF_INET6
    inet6.sin6_port = sys.htons(address.port)
    inet6.sin6_scope_id = address.scope
    memcpy(&inet6.sin6_addr, address.ip, 16)
    return sizeof(sys.sockaddr_in6)

cdef inline size_t slices_length(const io_slice_t *slices, int n) noexcept nogil:
    cdef size_t length = 0
    cdef int i
    for i in range(n):
        length += slices[i].length
    return length

cdef inline int fill_buffers(sys.WSABUF *buffers, const io_slice_t *slices, int n, size_t skip, size_t room) noexcept nogil:
    """Describe up to `room` bytes of the slices, without the first `skip`. How many buffers."""
    cdef int i, used = 0
    cdef size_t length
    for i in range(n):
        if room == 0:
            break
        if skip >= slices[i].length:
            skip -= slices[i].length
            continue
        length = min(slices[i].length - skip, room)
        buffers[used].buf = slices[i].base + skip
        buffers[used].len = <unsigned long>length
        room -= length
        skip = 0
        used += 1
    return used
