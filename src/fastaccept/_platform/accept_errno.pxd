"""What an errno of accept4 means, sorted once. The sources are accept(2), and what kernels were seen to do.

    EMPTY     EAGAIN                                  nobody waits
    RETRY     ECONNABORTED, EPROTO, EPERM, EINTR      the client is gone, a firewall forbids it, a signal came
              ENETDOWN, ENETUNREACH, ENONET,          errors that were pending on the new socket: "treat them like
              EHOSTDOWN, EHOSTUNREACH,                EAGAIN by retrying" (accept(2), Error handling)
              ENOPROTOOPT, ETIMEDOUT, ECONNRESET
    PAUSE     EMFILE, ENFILE, ENOBUFS, ENOMEM,        descriptors of the process, of the machine; memory; epoll's
              ENOSPC, ENOSR                           watches (epoll_ctl gives ENOSPC)
    FATAL     EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP     not a listening stream socket any more, and never again
    UNKNOWN   anything else
"""
from libc cimport errno as e
from fastaccept._backend cimport (
    ACCEPT_EMPTY, ACCEPT_FATAL, ACCEPT_PAUSE, ACCEPT_RETRY, ACCEPT_UNKNOWN, accept_class_t,
)

cdef extern from "<errno.h>" nogil:
    int ENONET
    int EHOSTDOWN
    int ENOSR

cdef inline accept_class_t accept_class_of(int error) noexcept nogil:
    if error == e.EAGAIN:
        return ACCEPT_EMPTY
    if error == e.EMFILE or error == e.ENFILE or error == e.ENOBUFS or error == e.ENOMEM or error == e.ENOSPC or error == ENOSR:
        return ACCEPT_PAUSE
    if error == e.ECONNABORTED or error == e.EPROTO or error == e.EPERM or error == e.EINTR or error == e.ECONNRESET:
        return ACCEPT_RETRY
    if error == e.ENETDOWN or error == e.ENETUNREACH or error == ENONET or error == EHOSTDOWN or error == e.EHOSTUNREACH:
        return ACCEPT_RETRY
    if error == e.ENOPROTOOPT or error == e.ETIMEDOUT:
        return ACCEPT_RETRY
    if error == e.EBADF or error == e.EINVAL or error == e.ENOTSOCK or error == e.EOPNOTSUPP:
        return ACCEPT_FATAL
    return ACCEPT_UNKNOWN
