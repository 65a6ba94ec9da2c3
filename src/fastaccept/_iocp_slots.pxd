"""Slots of IocpBackend: what the system needs of a connection, above all the OVERLAPPEDs that it writes to.

A slot has the index of its token. Chunks never move; one goes when the last of its slots is free, but for one that is kept.
"""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from fastaccept._platform.win32 cimport OVERLAPPED, SOCKET
from fastaccept._slots cimport token_index

cdef enum:
    IOCP_CHUNK = 1024                # slots of one allocation, about 96 KiB

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
    SLOT_WATCHED = 512               # the next wait posts a read even if nobody reads

cdef struct iocp_slot_t:
    OVERLAPPED reading               # the zero-byte WSARecv
    OVERLAPPED writing               # WSASend, or ConnectEx before it
    SOCKET handle                    # INVALID_SOCKET = none
    uint64_t token                   # 0 = the slot is free
    uint32_t next_listed             # link of that list
    int32_t read_error               # what the zero-byte read ended with; recv() answers it from then on
    uint16_t flags                   # slot_flag_t

cdef struct iocp_slots_t:
    iocp_slot_t **chunks             # NULL = chunk not allocated
    uint32_t *used                   # slots in use, by chunk
    uint32_t n_chunks                # length of the two arrays above
    uint32_t n_allocated             # chunks that are there

cdef iocp_slot_t *iocp_slot_open(iocp_slots_t *slots, uint64_t token) noexcept nogil     # NULL: out of memory
cdef void iocp_slot_free(iocp_slots_t *slots, iocp_slot_t *slot) noexcept nogil
cdef void iocp_slots_clear(iocp_slots_t *slots, bint keep_memory) noexcept nogil         # keep_memory: the chunks are lost
cdef size_t iocp_slots_bytes(const iocp_slots_t *slots) noexcept nogil

cdef inline iocp_slot_t *iocp_slot_at(const iocp_slots_t *slots, uint32_t index) noexcept nogil:
    """The slot of an index, in use or not; NULL: there is none."""
    cdef uint32_t chunk = index // IOCP_CHUNK
    if chunk >= slots.n_chunks or slots.chunks[chunk] == NULL:
        return NULL
    return &slots.chunks[chunk][index % IOCP_CHUNK]

cdef inline iocp_slot_t *iocp_slot_find(const iocp_slots_t *slots, uint64_t token) noexcept nogil:
    """The slot of a token that is in use and not being closed, else NULL."""
    cdef iocp_slot_t *slot = iocp_slot_at(slots, token_index(token))
    return slot if slot != NULL and slot.token == token and not (slot.flags & SLOT_CLOSING) else NULL
