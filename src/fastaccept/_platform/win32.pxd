"""What Windows gives, declared and nothing more. Only _iocp and its parts may cimport this."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint8_t, uintptr_t

# winsock2.h has to come before windows.h, which would bring the first Winsock along.
cdef extern from "<winsock2.h>" nogil:
    ctypedef uintptr_t SOCKET
    ctypedef unsigned long DWORD
    ctypedef uintptr_t ULONG_PTR
    ctypedef int BOOL
    ctypedef void *HANDLE
    ctypedef struct OVERLAPPED:
        ULONG_PTR Internal
    ctypedef struct WSABUF:
        unsigned long len
        char *buf
    ctypedef struct WSADATA:
        pass
    ctypedef struct GUID:
        pass
    ctypedef struct WSAPROTOCOL_INFOW:
        DWORD dwServiceFlags1
    cdef struct linger_t "linger":
        unsigned short l_onoff
        unsigned short l_linger
    cdef struct sockaddr:
        uint16_t sa_family
    cdef struct sockaddr_storage:
        uint16_t ss_family
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    SOCKET INVALID_SOCKET
    enum:
        AF_INET
        AF_INET6
        SOCK_STREAM
        SOL_SOCKET
        IPPROTO_TCP
        SO_LINGER
        SO_KEEPALIVE
        SO_PROTOCOL_INFOW
        SO_EXCLUSIVEADDRUSE
        SO_REUSEADDR
        TCP_NODELAY
        FIONBIO
        SD_SEND
        SIO_GET_EXTENSION_FUNCTION_POINTER
        WSA_FLAG_OVERLAPPED
        XP1_IFS_HANDLES
        WSAEWOULDBLOCK
        WSAECONNRESET
        WSAECONNABORTED
        WSA_IO_PENDING
    int WSAStartup(uint16_t version, WSADATA *found)
    int WSACleanup()
    int WSAGetLastError()
    SOCKET WSASocketW(int family, int type, int protocol, void *info, unsigned int group, DWORD flags)
    int WSARecv(SOCKET s, WSABUF *buffers, DWORD n, DWORD *taken, DWORD *flags, OVERLAPPED *overlapped, void *routine)
    int WSASend(SOCKET s, WSABUF *buffers, DWORD n, DWORD *taken, DWORD flags, OVERLAPPED *overlapped, void *routine)
    int WSAIoctl(SOCKET s, DWORD code, void *input, DWORD n_input, void *output, DWORD n_output, DWORD *returned,
                 OVERLAPPED *overlapped, void *routine)
    SOCKET accept(SOCKET s, sockaddr *address, int *length)
    int bind(SOCKET s, const sockaddr *address, int length)
    int listen(SOCKET s, int backlog)
    int recv(SOCKET s, char *buffer, int n, int flags)
    int send(SOCKET s, const char *buffer, int n, int flags)
    int shutdown(SOCKET s, int how)
    int closesocket(SOCKET s)
    int ioctlsocket(SOCKET s, long command, unsigned long *value)
    int getsockname(SOCKET s, sockaddr *address, int *length)
    int getsockopt(SOCKET s, int level, int option, char *value, int *length)
    int setsockopt(SOCKET s, int level, int option, const char *value, int length)
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)

cdef extern from "<ws2tcpip.h>" nogil:
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    enum:
        IPPROTO_IPV6
        IPV6_V6ONLY

cdef extern from * nogil:
    """
    #include <winsock2.h>
    #ifndef WSA_FLAG_NO_HANDLE_INHERIT
    #define WSA_FLAG_NO_HANDLE_INHERIT 0x80
    #endif
    #ifndef SO_PAUSE_ACCEPT
    #define SO_PAUSE_ACCEPT 0x3003
    #endif
    """
    enum:
        WSA_FLAG_NO_HANDLE_INHERIT
        SO_PAUSE_ACCEPT

cdef extern from * nogil:
    """
    #include <winsock2.h>
    #include <mstcpip.h>
    /* The headers have these only for a build that is meant for Windows 10, version 1703, and later alone. A system that does
       not know the code says WSAEOPNOTSUPP. The structure is TCP_INFO_v0 as it is documented; its first member is what we read. */
    #ifndef SIO_TCP_INFO
    #define SIO_TCP_INFO _WSAIORW(IOC_VENDOR, 39)
    #endif
    enum { FA_TCPSTATE_FIN_WAIT_2 = 6, FA_TCPSTATE_TIME_WAIT = 10 };
    typedef struct {
      ULONG State, Mss;
      ULONG64 ConnectionTimeMs;
      BOOLEAN TimestampsEnabled;
      ULONG RttUs, MinRttUs, BytesInFlight, Cwnd, SndWnd, RcvWnd, RcvBuf;
      ULONG64 BytesOut, BytesIn;
      ULONG BytesReordered, BytesRetrans, FastRetrans, DupAcksIn, TimeoutEpisodes;
      UCHAR SynRetrans;
    } fa_tcp_info_v0;
    """
    enum:
        SIO_TCP_INFO
        TCPSTATE_FIN_WAIT_2 "FA_TCPSTATE_FIN_WAIT_2"
        TCPSTATE_TIME_WAIT "FA_TCPSTATE_TIME_WAIT"
    ctypedef struct fa_tcp_info_v0:
        unsigned long State

cdef extern from "<mswsock.h>" nogil:
    ctypedef BOOL (*LPFN_ACCEPTEX)(SOCKET listener, SOCKET accepted, void *output, DWORD n_received, DWORD n_local, DWORD n_remote,
                                   DWORD *received, OVERLAPPED *overlapped) noexcept
    ctypedef BOOL (*LPFN_CONNECTEX)(SOCKET s, const sockaddr *name, int length, void *data, DWORD n, DWORD *sent,
                                    OVERLAPPED *overlapped) noexcept
    ctypedef void (*LPFN_GETACCEPTEXSOCKADDRS)(void *output, DWORD n_received, DWORD n_local, DWORD n_remote, sockaddr **local,
                                               int *local_length, sockaddr **remote, int *remote_length) noexcept
    enum:
        SO_UPDATE_ACCEPT_CONTEXT
        SO_UPDATE_CONNECT_CONTEXT

cdef extern from * nogil:
    """
    #include <mswsock.h>
    /* WSAID_... are initializers, and no values. */
    static const GUID fa_acceptex_id = WSAID_ACCEPTEX;
    static const GUID fa_connectex_id = WSAID_CONNECTEX;
    static const GUID fa_getacceptexsockaddrs_id = WSAID_GETACCEPTEXSOCKADDRS;
    """
    const GUID fa_acceptex_id
    const GUID fa_connectex_id
    const GUID fa_getacceptexsockaddrs_id

cdef extern from "<windows.h>" nogil:
    ctypedef struct OVERLAPPED_ENTRY:
        ULONG_PTR lpCompletionKey
        OVERLAPPED *lpOverlapped
        DWORD dwNumberOfBytesTransferred
    ctypedef union LARGE_INTEGER:
        int64_t QuadPart
    HANDLE INVALID_HANDLE_VALUE
    enum:
        INFINITE
        FILE_SKIP_COMPLETION_PORT_ON_SUCCESS
        FILE_SKIP_SET_EVENT_ON_HANDLE
        WAIT_TIMEOUT
    DWORD GetLastError()
    BOOL CloseHandle(HANDLE handle)
    HANDLE CreateIoCompletionPort(HANDLE file, HANDLE port, ULONG_PTR key, DWORD threads)
    BOOL GetQueuedCompletionStatusEx(HANDLE port, OVERLAPPED_ENTRY *entries, unsigned long n, unsigned long *removed, DWORD timeout_ms,
                                     BOOL alertable)
    BOOL PostQueuedCompletionStatus(HANDLE port, DWORD bytes, ULONG_PTR key, OVERLAPPED *overlapped)
    BOOL SetFileCompletionNotificationModes(HANDLE file, unsigned char flags)
    BOOL GetOverlappedResult(HANDLE file, OVERLAPPED *overlapped, DWORD *bytes, BOOL wait)
    BOOL CancelIoEx(HANDLE file, OVERLAPPED *overlapped)
    BOOL QueryPerformanceCounter(LARGE_INTEGER *count)
    BOOL QueryPerformanceFrequency(LARGE_INTEGER *frequency)
