"""IocpBackend: the seam over an I/O completion port. See _iocp.pyx."""
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from fastaccept._backend cimport Backend, io_event_t
from fastaccept._buffers cimport io_slice_t
from fastaccept._iocp_accept cimport IocpListeners
from fastaccept._iocp_slots cimport iocp_slot_t, iocp_slots_t
from fastaccept._platform.win32 cimport HANDLE, OVERLAPPED, OVERLAPPED_ENTRY
from fastaccept._platform.win32_calls cimport calls_t

cdef enum:
    IOCP_BATCH = 256                 # completions taken by one call


@cython.final
cdef class IocpBackend(Backend):
    cdef HANDLE port
    cdef bint is_started             # WSAStartup() was called
    cdef bint can_skip               # the sockets are the system's own (see _associate)
    cdef int64_t ticks_per_s
    cdef calls_t calls
    cdef IocpListeners accepting
    cdef iocp_slots_t slots
    cdef uint32_t n_posted           # OVERLAPPEDs of connections that have not come back
    cdef uint32_t first_listed       # list of slots for the next wait; SLOT_NONE = empty

    cdef int _load(self) noexcept nogil
    cdef void _end_winsock(self) noexcept nogil
    cdef int _associate(self, iocp_slot_t *slot) noexcept nogil
    cdef void _list(self, iocp_slot_t *slot) noexcept nogil
    cdef int _emit_listed(self, io_event_t *events, int capacity) noexcept nogil
    cdef int _see_to(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil
    cdef int _reset_behind_end(self, iocp_slot_t *slot) noexcept nogil
    cdef void _watch(self, iocp_slot_t *slot) noexcept nogil
    cdef int _post_read(self, iocp_slot_t *slot) noexcept nogil
    cdef int _begin_connect(self, iocp_slot_t *slot, const void *peer, int n_peer, const void *source, int n_source) noexcept nogil
    cdef int64_t _send_overlapped(self, iocp_slot_t *slot, const io_slice_t *slices, int n, size_t skip) noexcept nogil
    cdef int _emit_completed(self, const OVERLAPPED_ENTRY *entry, io_event_t *events) noexcept nogil
    cdef int _emit_read(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil
    cdef int _emit_readable(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil
    cdef int _emit_written(self, iocp_slot_t *slot, int64_t n, io_event_t *events) noexcept nogil
    cdef int _emit_connected(self, iocp_slot_t *slot, int code, io_event_t *event) noexcept nogil
