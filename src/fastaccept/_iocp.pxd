"""IocpBackend: the seam over an I/O completion port. See _iocp.pyx."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fastaccept._backend cimport Backend, io_event_t
from fastaccept._buffers cimport io_slice_t
from fastaccept._iocp_accept cimport IocpListeners
from fastaccept._platform.win32 cimport HANDLE, OVERLAPPED, OVERLAPPED_ENTRY, SOCKET
from fastaccept._platform.win32_calls cimport calls_t

cdef enum:
    IOCP_BATCH = 256                 # completions taken by one call
    IOCP_CHUNK = 1024                # slots of one allocation, about 112 KiB

cdef enum slot_flag_t:
    SLOT_WANTS_READ = 1              # between read_start() and read_stop()
    SLOT_READ_POSTED = 2             # the zero-byte WSARecv has not come back
    SLOT_WRITE_POSTED = 4            # nor has the WSASend, or the ConnectEx
    SLOT_CONNECTING = 8
    SLOT_CLOSING = 16                # close_socket() was called
    SLOT_SKIPS = 32                  # a call that succeeds at once brings no completion
    SLOT_LISTED = 64                 # in the list of those that the next wait sees to
    SLOT_CONNECTED = 128             # ConnectEx succeeded at once: to be reported by the next wait
    SLOT_SENT_OWED = 256             # a send that succeeded at once took only a part: to be reported by the next wait

cdef struct iocp_slot_t:
    OVERLAPPED reading               # the zero-byte WSARecv
    OVERLAPPED writing               # WSASend, or ConnectEx before it
    SOCKET handle                    # INVALID_SOCKET = none
    uint64_t token                   # 0 = the slot is free
    uint32_t next_listed             # link of that list
    int32_t read_error               # what the zero-byte read ended with; recv() answers it from then on
    uint16_t flags                   # slot_flag_t

cdef class IocpBackend(Backend):
    cdef HANDLE port
    cdef bint is_started             # WSAStartup() was called
    cdef bint can_skip               # the sockets are the system's own (see _associate)
    cdef int64_t ticks_per_s
    cdef calls_t calls
    cdef IocpListeners accepting
    cdef iocp_slot_t **chunks        # they never move: the system holds pointers into them
    cdef uint32_t *used              # slots in use, by chunk
    cdef uint32_t n_chunks
    cdef uint32_t n_allocated        # chunks that are there
    cdef uint32_t n_posted           # OVERLAPPEDs of connections that have not come back
    cdef uint32_t first_listed       # list of slots for the next wait; SLOT_NONE = empty

    cdef int _load(self) noexcept nogil
    cdef void _end_winsock(self) noexcept nogil
    cdef iocp_slot_t *_slot_at(self, uint32_t index) noexcept nogil
    cdef iocp_slot_t *_slot_of(self, uint64_t token) noexcept nogil
    cdef iocp_slot_t *_slot_open(self, uint64_t token) noexcept nogil
    cdef void _slot_free(self, iocp_slot_t *slot) noexcept nogil
    cdef int _associate(self, iocp_slot_t *slot) noexcept nogil
    cdef void _list(self, iocp_slot_t *slot) noexcept nogil
    cdef int _emit_listed(self, io_event_t *events, int capacity) noexcept nogil
    cdef int _see_to(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil
    cdef int _post_read(self, iocp_slot_t *slot) noexcept nogil
    cdef int _begin_connect(self, iocp_slot_t *slot, const void *peer, int n_peer, const void *source, int n_source) noexcept nogil
    cdef int64_t _send_overlapped(self, iocp_slot_t *slot, const io_slice_t *slices, int n, size_t skip) noexcept nogil
    cdef int _emit_completed(self, const OVERLAPPED_ENTRY *entry, io_event_t *events) noexcept nogil
    cdef int _emit_read(self, iocp_slot_t *slot, io_event_t *event) noexcept nogil
    cdef int _emit_written(self, iocp_slot_t *slot, int64_t n, io_event_t *events) noexcept nogil
    cdef int _emit_connected(self, iocp_slot_t *slot, int code, io_event_t *event) noexcept nogil
