"""Slots of IocpBackend (see _iocp_slots.pxd). PURE: memory and nothing else."""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from fastaccept._platform.win32 cimport INVALID_SOCKET
from fastaccept._slots cimport SLOT_NONE, token_index


cdef bint _grow(iocp_slots_t *slots, uint32_t wanted) noexcept nogil:
    """Make the directory longer. False: out of memory, and nothing has changed."""
    cdef void *grown = realloc(slots.chunks, wanted * sizeof(iocp_slot_t *))
    if grown == NULL:
        return False
    slots.chunks = <iocp_slot_t **>grown
    grown = realloc(slots.used, wanted * sizeof(uint32_t))
    if grown == NULL:
        return False
    slots.used = <uint32_t *>grown
    memset(&slots.chunks[slots.n_chunks], 0, (wanted - slots.n_chunks) * sizeof(iocp_slot_t *))
    memset(&slots.used[slots.n_chunks], 0, (wanted - slots.n_chunks) * sizeof(uint32_t))
    slots.n_chunks = wanted
    return True


cdef iocp_slot_t *iocp_slot_open(iocp_slots_t *slots, uint64_t token) noexcept nogil:
    cdef uint32_t chunk = token_index(token) // IOCP_CHUNK
    cdef iocp_slot_t *slot
    if chunk >= slots.n_chunks and not _grow(slots, max(chunk + 1, 2 * slots.n_chunks)):
        return NULL
    if slots.chunks[chunk] == NULL:
        slots.chunks[chunk] = <iocp_slot_t *>calloc(IOCP_CHUNK, sizeof(iocp_slot_t))
        if slots.chunks[chunk] == NULL:
            return NULL
        slots.n_allocated += 1
    slot = &slots.chunks[chunk][token_index(token) % IOCP_CHUNK]
    memset(slot, 0, sizeof(iocp_slot_t))
    slot.handle = INVALID_SOCKET
    slot.token = token
    slot.next_listed = SLOT_NONE
    slots.used[chunk] += 1
    return slot


cdef void iocp_slot_free(iocp_slots_t *slots, iocp_slot_t *slot) noexcept nogil:
    cdef uint32_t chunk = token_index(slot.token) // IOCP_CHUNK
    slot.token = 0
    slots.used[chunk] -= 1
    if slots.used[chunk] == 0 and slots.n_allocated > 1:
        free(slots.chunks[chunk])
        slots.chunks[chunk] = NULL
        slots.n_allocated -= 1


cdef void iocp_slots_clear(iocp_slots_t *slots, bint keep_memory) noexcept nogil:
    cdef uint32_t i
    if not keep_memory:
        for i in range(slots.n_chunks):
            free(slots.chunks[i])
    free(slots.chunks)
    free(slots.used)
    memset(slots, 0, sizeof(iocp_slots_t))


cdef size_t iocp_slots_bytes(const iocp_slots_t *slots) noexcept nogil:
    return slots.n_allocated * IOCP_CHUNK * sizeof(iocp_slot_t) + slots.n_chunks * (sizeof(void *) + sizeof(uint32_t))
