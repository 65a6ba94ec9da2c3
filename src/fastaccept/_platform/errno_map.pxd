"""What a code of Winsock or of the system means: its errno, and for an accept its class. Sorted once, here.

A completion brings system codes (ERROR_NETNAME_DELETED), a call brings Winsock's (WSAECONNRESET), for one and the same thing;
which of them depends on the driver, so both stand in every row. Sources: "Windows Sockets Error Codes" and "System Error Codes",
the AcceptEx page, and what was seen: a completion for want of descriptors is 4, an accept() for want of them is 10022.

    RETRY     that client is gone, or was never reachable; the listener lives
    PAUSE     handles, non-paged pool, memory or quota are short
    FATAL     the handle is not a listening socket, and never will be again
    UNKNOWN   anything else
"""
from libc cimport errno as e
from fastaccept._backend cimport ACCEPT_FATAL, ACCEPT_PAUSE, ACCEPT_RETRY, ACCEPT_UNKNOWN, accept_class_t, error_code

cdef inline accept_class_t accept_class_of(int code) noexcept nogil:
    if code in (
        4, 8, 14,                            # ERROR_TOO_MANY_OPEN_FILES, NOT_ENOUGH_MEMORY, OUTOFMEMORY
        1130, 1450, 1451, 1452, 1453, 1454, 1455,   # NOT_ENOUGH_SERVER_MEMORY, NO_SYSTEM_RESOURCES, the pools and quotas
        10022, 10024, 10055):                # WSAEINVAL (from an accept), WSAEMFILE, WSAENOBUFS
        return ACCEPT_PAUSE
    if code in (
        59, 64, 121, 676, 995,               # UNEXP_NET_ERR, NETNAME_DELETED, SEM_TIMEOUT, handle closed, OPERATION_ABORTED
        1225, 1226, 1229, 1231, 1232, 1233, 1234, 1235, 1236, 1460,  # CONNECTION_REFUSED .. CONNECTION_ABORTED, TIMEOUT
        10004, 10050, 10051, 10052, 10053, 10054, 10057, 10058, 10060, 10061, 10064, 10065):
        return ACCEPT_RETRY
    if code in (6, 10009, 10038, 10045):     # INVALID_HANDLE, WSAEBADF, WSAENOTSOCK, WSAEOPNOTSUPP
        return ACCEPT_FATAL
    return ACCEPT_UNKNOWN

cdef inline int errno_of(int code) noexcept nogil:
    """The C library's errno for a code of Winsock or of the system."""
    if code == 10035:
        return e.EAGAIN
    if code in (64, 1226, 10052, 10054):
        return e.ECONNRESET
    if code in (59, 676, 995, 1235, 1236, 10053):
        return e.ECONNABORTED
    if code in (121, 1460, 10060):
        return e.ETIMEDOUT
    if code in (1225, 1234, 10061):
        return e.ECONNREFUSED
    if code in (1231, 10051):
        return e.ENETUNREACH
    if code in (1232, 1233, 10064, 10065):
        return e.EHOSTUNREACH
    if code == 10050:
        return e.ENETDOWN
    if code in (4, 10024):
        return e.EMFILE
    if code in (1130, 1450, 1451, 1452, 10055):
        return e.ENOBUFS
    if code in (8, 14, 1453, 1454, 1455):
        return e.ENOMEM
    if code in (1227, 10048):
        return e.EADDRINUSE
    if code in (1228, 10049):
        return e.EADDRNOTAVAIL
    if code in (1229, 10057):
        return e.ENOTCONN
    if code == 10058:
        return e.EPIPE
    if code in (5, 10013):
        return e.EACCES
    if code in (6, 10009):
        return e.EBADF
    if code in (87, 10022):
        return e.EINVAL
    if code == 10004:
        return e.EINTR
    if code == 10014:
        return e.EFAULT
    if code == 10038:
        return e.ENOTSOCK
    if code == 10042:
        return e.ENOPROTOOPT
    if code == 10043:
        return e.EPROTONOSUPPORT
    if code in (50, 10045):
        return e.EOPNOTSUPP
    if code == 10047:
        return e.EAFNOSUPPORT
    if code == 10056:
        return e.EISCONN
    return e.EIO

cdef inline int error_of(int code) noexcept nogil:
    """The seam's error code, positive: errno and the system's own number. EAGAIN and EINTR are plain, for they are compared."""
    cdef int error = errno_of(code)
    if code == 0:
        return 0
    return error if error == e.EAGAIN or error == e.EINTR else error_code(error, code)
