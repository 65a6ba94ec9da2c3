"""Slots: the allocator behind the tokens (see _slots.pxd), and a view of it for tests."""
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset


cdef void slots_init(slots_t *slots, size_t record_bytes) noexcept nogil:
    memset(slots, 0, sizeof(slots_t))
    slots.record_bytes = record_bytes
    slots.empty_chunk = SLOT_NONE


cdef bint _grow_directory(slots_t *slots) noexcept nogil:
    """Make room for more chunk pointers. False: out of memory, and nothing has changed."""
    cdef uint32_t wanted = 2 * slots.n_chunks if slots.n_chunks else 4
    cdef uint32_t i
    cdef void *grown = realloc(slots.chunks, wanted * sizeof(char *))
    if grown == NULL:
        return False
    slots.chunks = <char **>grown
    grown = realloc(slots.used, wanted * sizeof(uint16_t))
    if grown == NULL:
        return False
    slots.used = <uint16_t *>grown
    grown = realloc(slots.free_head, wanted * sizeof(uint32_t))
    if grown == NULL:
        return False
    slots.free_head = <uint32_t *>grown
    for i in range(slots.n_chunks, wanted):
        slots.chunks[i] = NULL
        slots.used[i] = 0
        slots.free_head[i] = SLOT_NONE
    slots.n_chunks = wanted
    return True


cdef bint _open_chunk(slots_t *slots, uint32_t chunk) noexcept nogil:
    """Allocate a chunk and string its records up as free. False: out of memory."""
    cdef uint32_t first = chunk * SLOTS_PER_CHUNK
    cdef uint32_t i
    cdef char *memory = <char *>calloc(SLOTS_PER_CHUNK, slots.record_bytes)
    if memory == NULL:
        return False
    for i in range(SLOTS_PER_CHUNK):
        (<slot_t *>(memory + i * slots.record_bytes)).index = first + i + 1
    (<slot_t *>(memory + (SLOTS_PER_CHUNK - 1) * slots.record_bytes)).index = SLOT_NONE
    slots.chunks[chunk] = memory
    slots.free_head[chunk] = first
    return True


cdef void _keep_one_empty(slots_t *slots, uint32_t chunk) noexcept nogil:
    """A chunk has become empty. Were the higher of two kept, each record that comes and goes would open the lower anew."""
    cdef uint32_t surplus
    if slots.empty_chunk == SLOT_NONE:
        slots.empty_chunk = chunk
        return
    surplus = max(slots.empty_chunk, chunk)
    slots.empty_chunk = min(slots.empty_chunk, chunk)
    free(slots.chunks[surplus])
    slots.chunks[surplus] = NULL
    slots.free_head[surplus] = SLOT_NONE


cdef bint _find_room(slots_t *slots) noexcept nogil:
    """Move first_room to the lowest chunk with a free record, opening one if none has any."""
    while slots.first_room < slots.n_chunks:
        if slots.chunks[slots.first_room] == NULL:
            return _open_chunk(slots, slots.first_room)
        if slots.free_head[slots.first_room] != SLOT_NONE:
            return True
        slots.first_room += 1
    return _grow_directory(slots) and _open_chunk(slots, slots.first_room)


cdef void *slots_alloc(slots_t *slots, uint64_t *token) noexcept nogil:
    cdef uint32_t chunk, index
    cdef slot_t *slot
    if not _find_room(slots):
        return NULL
    chunk = slots.first_room
    index = slots.free_head[chunk]
    slot = <slot_t *>slots_at(slots, index)
    slots.free_head[chunk] = slot.index
    if slots.empty_chunk == chunk:
        slots.empty_chunk = SLOT_NONE
    slots.used[chunk] += 1
    slots.in_use += 1
    slots.generation += 1
    if slots.generation == 0:        # 0 means free
        slots.generation = 1
    memset(slot, 0, slots.record_bytes)
    slot.generation = slots.generation
    slot.index = index
    token[0] = slot_token(slot)
    return slot


cdef void slots_free(slots_t *slots, uint64_t token) noexcept nogil:
    cdef uint32_t index = token_index(token)
    cdef uint32_t chunk = index // SLOTS_PER_CHUNK
    cdef slot_t *slot = <slot_t *>slots_find(slots, token)
    if slot == NULL:
        return
    slot.generation = 0
    slot.index = slots.free_head[chunk]
    slots.free_head[chunk] = index
    slots.used[chunk] -= 1
    slots.in_use -= 1
    if chunk < slots.first_room:
        slots.first_room = chunk
    if slots.used[chunk] == 0:
        _keep_one_empty(slots, chunk)


cdef void slots_clear(slots_t *slots) noexcept nogil:
    cdef uint32_t i
    for i in range(slots.n_chunks):
        free(slots.chunks[i])
    free(slots.chunks)
    free(slots.used)
    free(slots.free_head)
    slots_init(slots, slots.record_bytes)


cdef uint32_t slots_next(const slots_t *slots, uint32_t start) noexcept nogil:
    cdef uint32_t index = start
    while index // SLOTS_PER_CHUNK < slots.n_chunks:
        if slots.used[index // SLOTS_PER_CHUNK] == 0:
            index = (index // SLOTS_PER_CHUNK + 1) * SLOTS_PER_CHUNK
        elif (<slot_t *>slots_at(slots, index)).generation != 0:
            return index
        else:
            index += 1
    return SLOT_NONE


cdef size_t slots_bytes(const slots_t *slots) noexcept nogil:
    cdef size_t total = slots.n_chunks * (sizeof(char *) + sizeof(uint16_t) + sizeof(uint32_t))
    cdef uint32_t i
    for i in range(slots.n_chunks):
        if slots.chunks[i] != NULL:
            total += SLOTS_PER_CHUNK * slots.record_bytes
    return total


cdef class Slots:
    """A view of slots_t for tests: records that hold nothing but their slot_t.

    Args:
        record_bytes: int, 8..65536 bytes, default 8: the size of one record.
    Threads: one at a time.
    """
    cdef slots_t slots

    def __cinit__(self, size_t record_bytes=sizeof(slot_t)):
        if not sizeof(slot_t) <= record_bytes <= 65536:
            raise ValueError(f"record_bytes is {record_bytes}; allowed are {sizeof(slot_t)}..65536")
        slots_init(&self.slots, record_bytes)

    def __dealloc__(self):
        slots_clear(&self.slots)

    def alloc(self):
        """Return a new token; raises MemoryError."""
        cdef uint64_t token
        if slots_alloc(&self.slots, &token) == NULL:
            raise MemoryError
        return token

    def free(self, uint64_t token):
        """Free a record; a stale token changes nothing."""
        slots_free(&self.slots, token)

    def is_current(self, uint64_t token):
        """True while the token's record is in use."""
        return slots_find(&self.slots, token) != NULL

    @property
    def in_use(self):
        """Records in use."""
        return self.slots.in_use

    @property
    def bytes(self):
        """Memory held, in bytes."""
        return slots_bytes(&self.slots)
