"""The seam's base class (see _backend.pxd): what a backend that lacks a call answers, and addresses as Python has them."""
from libc.errno cimport ENOSYS
from libc.string cimport memcpy, memset


cdef class Backend:
    cdef int open(self) except -1:
        raise NotImplementedError("a Backend is made by its subclasses")

    cdef void shutdown(self) noexcept nogil:
        pass

    cdef int64_t now_us(self) noexcept nogil:
        return 0

    cdef int64_t now_ms(self) noexcept nogil:
        return self.now_us() // 1000

    cdef int listener_open(self, uint32_t number, handle_t handle, int backlog) noexcept nogil:
        return -ENOSYS

    cdef int listener_mode(self, uint32_t number, accept_mode_t mode) noexcept nogil:
        return -ENOSYS

    cdef void listener_close(self, uint32_t number) noexcept nogil:
        pass

    cdef int listener_queue(self, uint32_t number, int64_t *queued, int64_t *backlog) noexcept nogil:
        return -ENOSYS

    cdef int set_reject_message(self, bytes message) except -1:
        return 0

    cdef void set_reserve(self, int64_t descriptors) noexcept nogil:
        pass

    cdef int attach(self, uint64_t token, handle_t handle) noexcept nogil:
        return -ENOSYS

    cdef void discard(self, handle_t handle) noexcept nogil:
        pass

    cdef int connect(self, uint64_t token, const address_t *peer, const address_t *source) noexcept nogil:
        return -ENOSYS

    cdef int read_start(self, uint64_t token) noexcept nogil:
        return -ENOSYS

    cdef void read_stop(self, uint64_t token) noexcept nogil:
        pass

    cdef int64_t recv(self, uint64_t token, char *buffer, size_t capacity) noexcept nogil:
        return -ENOSYS

    cdef int64_t send(self, uint64_t token, const io_slice_t *slices, int n) noexcept nogil:
        return -ENOSYS

    cdef int shutdown_write(self, uint64_t token) noexcept nogil:
        return -ENOSYS

    cdef int64_t unsent(self, uint64_t token) noexcept nogil:
        return -1

    cdef int local_address(self, uint64_t token, address_t *address) noexcept nogil:
        return -ENOSYS

    cdef int64_t handle_of(self, uint64_t token) noexcept nogil:
        return -1

    cdef int set_option(self, uint64_t token, int option, int value) noexcept nogil:
        return -ENOSYS

    cdef void close_socket(self, uint64_t token, bint reset) noexcept nogil:
        pass

    cdef int wait(self, io_event_t *events, int capacity, int64_t timeout_ms) noexcept nogil:
        return -ENOSYS

    cdef void wakeup(self) noexcept nogil:
        pass

    cdef size_t bytes_held(self) noexcept nogil:
        return 0


cdef object address_to_python(const address_t *address):
    import socket                    # with the first listen() or connect(), not with the package: that takes long
    cdef bytes ip = (<const char *>address.ip)[:16]
    if address.family == FAMILY_INET:
        return (socket.inet_ntop(socket.AF_INET, ip[:4]), address.port)
    if address.family == FAMILY_INET6:
        return (socket.inet_ntop(socket.AF_INET6, ip), address.port, 0, address.scope)
    return "" if address.family == FAMILY_UNIX else None


cdef int address_from_python(object host, int port, address_t *address) except -1:
    import socket
    cdef bytes ip
    memset(address, 0, sizeof(address_t))
    host, _, scope = host.partition("%")
    try:
        if ":" in host:
            ip = socket.inet_pton(socket.AF_INET6, host)
            address.family = FAMILY_INET6
            address.scope = int(scope) if scope.isdigit() else (socket.if_nametoindex(scope) if scope else 0)
        else:
            ip = socket.inet_pton(socket.AF_INET, host)
            address.family = FAMILY_INET
    except OSError:
        raise ValueError(f"host is {host!r}; a numeric IPv4 or IPv6 address is needed here") from None
    memcpy(address.ip, <const char *>ip, len(ip))
    address.port = port
    return 0
