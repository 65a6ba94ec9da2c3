"""What several calls to Linux have in common: errors as -errno, socket options, addresses in the seam's form."""
from libc.errno cimport errno
from libc.string cimport memcpy, memset
from fastaccept._backend cimport FAMILY_INET, FAMILY_INET6, FAMILY_NONE, FAMILY_UNIX, address_t
from fastaccept._platform cimport linux as sys


cdef inline int last_error() noexcept nogil:
    """-errno of the call just made."""
    return -errno


cdef inline void address_from_system(const sys.sockaddr_storage *storage, address_t *address) noexcept nogil:
    cdef const sys.sockaddr_in *inet = <const sys.sockaddr_in *>storage
    cdef const sys.sockaddr_in6 *inet6 = <const sys.sockaddr_in6 *>storage
    memset(address, 0, sizeof(address_t))
    if storage.ss_family == sys.AF_INET:
        address.family = FAMILY_INET
        address.port = sys.ntohs(inet.sin_port)
        memcpy(address.ip, &inet.sin_addr, 4)
    elif storage.ss_family == sys.AF_INET6:
        address.family = FAMILY_INET6
        address.port = sys.ntohs(inet6.sin6_port)
        address.scope = inet6.sin6_scope_id
        memcpy(address.ip, &inet6.sin6_addr, 16)
    elif storage.ss_family == sys.AF_UNIX:
        address.family = FAMILY_UNIX
    else:
        address.family = FAMILY_NONE


cdef inline sys.socklen_t address_to_system(const address_t *address, sys.sockaddr_storage *storage) noexcept nogil:
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


cdef inline int pending_error(int fd) noexcept nogil:
    """The error that waits on a socket, as -errno; taken from it."""
    cdef int error = 0
    cdef sys.socklen_t length = sizeof(int)
    if sys.getsockopt(fd, sys.SOL_SOCKET, sys.SO_ERROR, &error, &length) < 0:
        return last_error()
    return -error


cdef inline int set_int(int fd, int level, int option, int value) noexcept nogil:
    return 0 if sys.setsockopt(fd, level, option, &value, sizeof(int)) == 0 else last_error()


cdef inline int get_int(int fd, int level, int option) noexcept nogil:
    """A socket option's value, 0 if it can't be had."""
    cdef int value = 0
    cdef sys.socklen_t length = sizeof(int)
    sys.getsockopt(fd, level, option, &value, &length)
    return value


cdef inline void close_if_open(int *fd) noexcept nogil:
    if fd[0] >= 0:
        sys.close(fd[0])
        fd[0] = -1
