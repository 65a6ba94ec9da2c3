"""EpollBackend: the seam over epoll(7).

It owns the descriptors, the epoll set and one epoll_slot_t for each connection; it knows nothing of what the bytes mean or
why a listener is to stop. Listeners are level-triggered, connections edge-triggered: a level-triggered socket is asked once more by
each epoll_wait after one that reported it, which is some 2 % of an echo. So
- What is still there after a read has to be asked for again: by EPOLL_CTL_MOD, which looks at the socket anew. A read that gave
  less than was asked for left nothing, unless the FIN or urgent data had been reported: at the urgent mark a read stops short.
- What the kernel watches is only made smaller when an unwanted event comes, so that a send that was short, or reading that
  pauses for a moment, costs no epoll_ctl back and forth.

The listening half is in _epoll_accept. Sources: epoll(7), send(2), connect(2), ip(7).
"""
import os

from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, ENOMEM, ENOSYS, ENOTCONN, errno
from libc.limits cimport INT_MAX
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset
from posix.time cimport timespec
from fastaccept._backend cimport (
    FAMILY_INET, IO_CLOSED, IO_CONNECTED, IO_FAILED, IO_READABLE, IO_SENT, IO_WAKEUP, MODE_REJECT, OPTION_KEEPALIVE, OPTION_NODELAY,
    TOKEN_WAKEUP, address_t, handle_t, io_emit, io_event_t,
)
from fastaccept._buffers cimport io_slice_t
from fastaccept._epoll_accept cimport EPOLL_LISTENERS_MAX, EpollListeners
from fastaccept._slots cimport SLOT_NONE, token_generation, token_index
from fastaccept._platform cimport linux as sys
from fastaccept._platform.linux_sockets cimport (
    address_from_system, address_to_system, close_if_open, last_error, pending_error, set_int,
)


cdef class EpollBackend(EpollListeners):
    def __cinit__(self):
        self.wakeup_fd = -1
        self.first_closed = SLOT_NONE

    def __dealloc__(self):
        self.shutdown()

    # ---- life

    cdef int open(self) except -1:
        cdef sys.epoll_event event
        self.epfd = sys.epoll_create1(sys.EPOLL_CLOEXEC)
        self.wakeup_fd = sys.eventfd(0, sys.EFD_NONBLOCK | sys.EFD_CLOEXEC) if self.epfd >= 0 else -1
        event.events = sys.EPOLLIN
        event.data.u64 = TOKEN_WAKEUP
        if self.wakeup_fd < 0 or sys.epoll_ctl(self.epfd, sys.EPOLL_CTL_ADD, self.wakeup_fd, &event) < 0:
            error = errno
            self.shutdown()
            raise OSError(error, f"epoll can't be set up: {os.strerror(error)}")
        self._hold_spare()
        self.set_reserve(0)
        return 0

    cdef void shutdown(self) noexcept nogil:
        cdef uint32_t i
        for i in range(self.n_slots):
            if self.slots[i].fd >= 0:
                sys.close(self.slots[i].fd)
        self._free_slots()
        self.first_closed = SLOT_NONE
        for i in range(EPOLL_LISTENERS_MAX):
            self.listener_close(i)
        close_if_open(&self.spare_fd)
        close_if_open(&self.wakeup_fd)
        close_if_open(&self.epfd)

    cdef void _free_slots(self) noexcept nogil:
        free(self.slots)
        self.slots = NULL
        self.n_slots = 0
        self.n_used = 0

    cdef int64_t now_us(self) noexcept nogil:
        cdef timespec now
        sys.clock_gettime(sys.CLOCK_MONOTONIC, &now)
        return <int64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000

    # ---- connections

    cdef epoll_slot_t *_slot_of(self, uint64_t token) noexcept nogil:
        """The slot of a token that is in use, else NULL."""
        cdef uint32_t index = token_index(token)
        if index >= self.n_slots or self.slots[index].fd < 0 or self.slots[index].generation != token_generation(token):
            return NULL
        return &self.slots[index]

    cdef epoll_slot_t *_slot_open(self, uint64_t token) noexcept nogil:
        """The slot for a new token; NULL: out of memory."""
        cdef uint32_t index = token_index(token)
        cdef uint32_t wanted = max(self.n_slots, <uint32_t>64)
        cdef uint32_t i
        cdef void *grown
        if index >= self.n_slots:
            while wanted <= index:
                wanted *= 2
            grown = realloc(self.slots, wanted * sizeof(epoll_slot_t))
            if grown == NULL:
                return NULL
            self.slots = <epoll_slot_t *>grown
            for i in range(self.n_slots, wanted):
                self.slots[i].fd = -1
            self.n_slots = wanted
        self.n_used += 1
        memset(&self.slots[index], 0, sizeof(epoll_slot_t))
        self.slots[index].fd = -1
        self.slots[index].generation = token_generation(token)
        self.slots[index].next_closed = SLOT_NONE
        return &self.slots[index]

    cdef int attach(self, uint64_t token, handle_t handle) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_open(token)
        if slot == NULL:
            return -ENOMEM
        slot.fd = <int>handle
        return 0

    cdef void discard(self, handle_t handle) noexcept nogil:
        cdef sys.linger_t reset
        reset.l_onoff = 1
        reset.l_linger = 0
        sys.setsockopt(<int>handle, sys.SOL_SOCKET, sys.SO_LINGER, &reset, sizeof(reset))
        sys.close(<int>handle)

    cdef int connect(self, uint64_t token, const address_t *peer, const address_t *source) noexcept nogil:
        cdef sys.sockaddr_storage storage
        cdef sys.socklen_t length
        cdef int family = sys.AF_INET if peer.family == FAMILY_INET else sys.AF_INET6
        cdef int done = 0
        cdef epoll_slot_t *slot = self._slot_open(token)
        if slot == NULL:
            return -ENOMEM
        slot.fd = sys.socket(family, sys.SOCK_STREAM | sys.SOCK_NONBLOCK | sys.SOCK_CLOEXEC, 0)
        if slot.fd < 0:
            return last_error()
        if source != NULL:
            # Without this a bind to port 0 takes a port away from every destination (ip(7)).
            set_int(slot.fd, sys.IPPROTO_IP, sys.IP_BIND_ADDRESS_NO_PORT, 1)
            length = address_to_system(source, &storage)
            done = 0 if sys.bind(slot.fd, <sys.sockaddr *>&storage, length) == 0 else last_error()
        if done == 0:
            length = address_to_system(peer, &storage)
            done = 0 if sys.connect(slot.fd, <sys.sockaddr *>&storage, length) == 0 else last_error()
        if done == 0 or done == -EINPROGRESS:
            slot.is_connecting = True
            slot.wanted = sys.EPOLLOUT
            done = self._watch(slot, token_index(token))
        if done < 0:
            sys.close(slot.fd)
            slot.fd = -1
        return done

    cdef int _watch(self, epoll_slot_t *slot, uint32_t index) noexcept nogil:
        """Make the kernel watch what is wanted, and report what is there already."""
        cdef sys.epoll_event event
        event.events = slot.wanted | sys.EPOLLET
        if slot.wanted & sys.EPOLLIN:
            event.events |= sys.EPOLLRDHUP | sys.EPOLLPRI
        event.data.u64 = (<uint64_t>slot.generation << 32) | index
        if sys.epoll_ctl(self.epfd, sys.EPOLL_CTL_MOD if slot.is_watched else sys.EPOLL_CTL_ADD, slot.fd, &event) < 0:
            return last_error()
        slot.is_watched = True
        slot.watched = slot.wanted
        return 0

    cdef int read_start(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return -ENOTCONN
        slot.wanted |= sys.EPOLLIN
        # A wider watch than wanted may stand from before; it is narrowed when it shows.
        return 0 if slot.watched & sys.EPOLLIN and slot.is_dry else self._watch(slot, token_index(token))

    cdef void read_stop(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return
        slot.wanted &= ~<uint8_t>sys.EPOLLIN
        if not slot.is_watched:      # nothing is awaited yet, but a reset has to be heard of: EPOLLERR and EPOLLHUP always are
            self._watch(slot, token_index(token))

    cdef int64_t recv(self, uint64_t token, char *buffer, size_t capacity) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef int64_t n
        if slot == NULL:
            return -ENOTCONN
        n = sys.recv(slot.fd, buffer, capacity, 0)
        if n > 0:
            slot.is_dry = <size_t>n < capacity and not slot.stops_short
        else:
            # A reset after the peer's FIN: recv(2) says 0 for ever, and the edge is used up. Asked again, the kernel tells again.
            n = last_error() if n < 0 else 0
            slot.is_dry = n != -EINTR and not (n == 0 and slot.has_error)
        if not slot.is_dry and slot.wanted & slot.watched & sys.EPOLLIN:
            self._watch(slot, token_index(token))    # can't fail: a change of the watch needs no memory
        return n

    cdef int64_t send(self, uint64_t token, const io_slice_t *slices, int n) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef sys.msghdr message
        cdef size_t offered = 0
        cdef ssize_t sent
        cdef int i, done
        if slot == NULL:
            return -ENOTCONN
        for i in range(n):
            offered += slices[i].length
        if n == 1:
            sent = sys.send(slot.fd, slices[0].base, slices[0].length, sys.MSG_NOSIGNAL)
        else:
            memset(&message, 0, sizeof(message))
            message.msg_iov = <sys.iovec *>slices
            message.msg_iovlen = n
            sent = sys.sendmsg(slot.fd, &message, sys.MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                return last_error()
            sent = 0
        if <size_t>sent < offered:
            slot.wanted |= sys.EPOLLOUT
            if not slot.watched & sys.EPOLLOUT:
                done = self._watch(slot, token_index(token))
                if done < 0:
                    return done
        return sent

    cdef int shutdown_write(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return -ENOTCONN
        return 0 if sys.shutdown(slot.fd, sys.SHUT_WR) == 0 else last_error()

    cdef int64_t unsent(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef int waiting = 0
        if slot == NULL or sys.ioctl(slot.fd, sys.SIOCOUTQ, &waiting) < 0:
            return -1
        return waiting

    cdef int local_address(self, uint64_t token, address_t *address) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef sys.sockaddr_storage storage
        cdef sys.socklen_t length = sizeof(storage)
        if slot == NULL:
            return -ENOTCONN
        if sys.getsockname(slot.fd, <sys.sockaddr *>&storage, &length) < 0:
            return last_error()
        address_from_system(&storage, address)
        return 0

    cdef int64_t handle_of(self, uint64_t token) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        return slot.fd if slot != NULL else -1

    cdef int set_option(self, uint64_t token, int option, int value) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:
            return -ENOTCONN
        if option == OPTION_NODELAY:
            return set_int(slot.fd, sys.IPPROTO_TCP, sys.TCP_NODELAY, value)
        if option == OPTION_KEEPALIVE:
            return set_int(slot.fd, sys.SOL_SOCKET, sys.SO_KEEPALIVE, value)
        return -ENOSYS

    cdef void close_socket(self, uint64_t token, bint reset) noexcept nogil:
        cdef epoll_slot_t *slot = self._slot_of(token)
        if slot == NULL:             # a connect() that failed at once left no descriptor; its slot is reported all the same
            if token_index(token) >= self.n_slots:
                return
            slot = &self.slots[token_index(token)]
        elif reset:
            self.discard(slot.fd)
        else:
            sys.close(slot.fd)
        slot.fd = -1
        slot.next_closed = self.first_closed
        self.first_closed = token_index(token)

    # ---- the turn

    cdef int _emit_closed(self, io_event_t *events, int capacity) noexcept nogil:
        cdef int written = 0
        cdef uint32_t index
        while self.first_closed != SLOT_NONE and written < capacity:
            index = self.first_closed
            self.first_closed = self.slots[index].next_closed
            io_emit(&events[written], IO_CLOSED, (<uint64_t>self.slots[index].generation << 32) | index)
            written += 1
        self.n_used -= written
        if self.n_used == 0 and written:         # everybody has left: so does the table, which is as long as there were ever connections
            self._free_slots()
        return written

    cdef int _emit_socket(self, io_event_t *events, uint64_t token, uint32_t happened) noexcept nogil:
        """What happened on a connection: none, one or two events."""
        cdef epoll_slot_t *slot = self._slot_of(token)
        cdef uint32_t ended = happened & (sys.EPOLLERR | sys.EPOLLHUP)
        cdef uint32_t stops_short = ended | happened & (sys.EPOLLRDHUP | sys.EPOLLPRI)
        cdef int written = 0
        if slot == NULL:             # the loop drops it, and counts it
            io_emit(events, IO_READABLE, token)
            return 1
        if slot.is_connecting:
            slot.is_connecting = False
            slot.wanted = 0
            io_emit(events, IO_CONNECTED, token).result = pending_error(slot.fd)
            return 1
        if (happened & sys.EPOLLOUT or ended) and slot.wanted & sys.EPOLLOUT:
            slot.wanted &= ~<uint8_t>sys.EPOLLOUT
            io_emit(events, IO_SENT, token)
            written = 1
        if happened & sys.EPOLLIN or stops_short:
            slot.is_dry = False
            slot.stops_short = stops_short != 0
            slot.has_error = happened & sys.EPOLLERR != 0
            if slot.wanted & sys.EPOLLIN:
                io_emit(&events[written], IO_READABLE, token)
                return written + 1
        if written:
            return written
        if happened & sys.EPOLLERR:
            io_emit(events, IO_FAILED, token).error = -pending_error(slot.fd)
            written = 1
        if slot.watched != slot.wanted:
            self._watch(slot, token_index(token))
        return written

    cdef int _emit_ready(self, io_event_t *events, int capacity, const sys.epoll_event *ready) noexcept nogil:
        cdef uint64_t token = ready.data.u64
        cdef uint64_t counter
        if token == TOKEN_WAKEUP:
            sys.read(self.wakeup_fd, &counter, sizeof(counter))
            io_emit(events, IO_WAKEUP, token)
            return 1
        if token_generation(token) != 0:
            return self._emit_socket(events, token, ready.events)
        if self.listeners[token].fd < 0:
            return 0
        if self.listeners[token].mode == MODE_REJECT:
            return self._reject_clients(<uint32_t>token, events)
        return self._accept_clients(<uint32_t>token, events, capacity)

    cdef int wait(self, io_event_t *events, int capacity, int64_t timeout_ms) noexcept nogil:
        cdef sys.epoll_event ready[EPOLL_BATCH]
        cdef int written = self._emit_closed(events, capacity // 2)
        cdef int room = (capacity - written) // 2        # one event of epoll may become two
        cdef int n, i
        self.n_waits += 1
        n = sys.epoll_wait(self.epfd, ready, min(<int>EPOLL_BATCH, room), 0 if written else <int>min(timeout_ms, <int64_t>INT_MAX))
        if n < 0:
            return written if written else last_error()
        for i in range(n):           # what was reported has to be passed on, so a listener leaves room for all after it
            written += self._emit_ready(&events[written], capacity - written - 2 * (n - i - 1), &ready[i])
        return written

    cdef void wakeup(self) noexcept nogil:
        cdef uint64_t one = 1
        sys.write(self.wakeup_fd, &one, sizeof(one))

    cdef size_t bytes_held(self) noexcept nogil:
        return self.n_slots * sizeof(epoll_slot_t) + self.reject_bytes
