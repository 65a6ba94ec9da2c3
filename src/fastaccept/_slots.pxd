"""Slots: where records live, and how an event finds its record again or learns that it is stale. PURE.

A record is named by a token: `generation << 32 | index`. Records sit in chunks that never move while one of
their records is in use, so the kernel may hold a pointer into one. A generation is given out once in 2**32
allocations, over all slots together: an event that outlived its record meets another generation (or 0, which is
free) and is dropped. That is nginx's `instance` bit, with 32 bits.

    alloc          lowest chunk with room first, so that a table that shrinks gives whole chunks back
    free           of two empty chunks the higher is returned to the allocator; the lower is kept against flapping,
                   because that is where the next record goes

Nothing here knows what a record is: it starts with a slot_t and is `record_bytes` long.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

cdef enum:
    SLOTS_PER_CHUNK = 1024           # 1,024 records of about 96 bytes: the size of one allocation, about 96 KiB
    SLOT_NONE = 0xFFFFFFFF           # no slot: the end of a list of indexes

cdef struct slot_t:
    uint32_t generation              # 0 = free
    uint32_t index                   # its own; while free, that of the next free slot of its chunk

cdef struct slots_t:
    size_t record_bytes              # size of one record, its slot_t included
    char **chunks                    # NULL = chunk not allocated
    uint16_t *used                   # records in use, by chunk
    uint32_t *free_head              # first free index, by chunk; SLOT_NONE = full
    uint32_t n_chunks                # length of the three arrays above
    uint32_t first_room              # no chunk below this one has room
    uint32_t in_use                  # records in use
    uint32_t empty_chunk             # the one chunk allocated with no record in use; SLOT_NONE = there is none
    uint32_t generation              # last one given out

cdef void slots_init(slots_t *slots, size_t record_bytes) noexcept nogil
cdef void *slots_alloc(slots_t *slots, uint64_t *token) noexcept nogil    # NULL: out of memory. The record is zeroed
cdef void slots_free(slots_t *slots, uint64_t token) noexcept nogil
cdef void slots_clear(slots_t *slots) noexcept nogil                      # gives all memory back
cdef uint32_t slots_next(const slots_t *slots, uint32_t start) noexcept nogil          # first index in use from start on, or SLOT_NONE
cdef size_t slots_bytes(const slots_t *slots) noexcept nogil              # memory held, in bytes

cdef inline uint32_t token_index(uint64_t token) noexcept nogil:
    return <uint32_t>token

cdef inline uint32_t token_generation(uint64_t token) noexcept nogil:
    return <uint32_t>(token >> 32)

cdef inline void *slots_at(const slots_t *slots, uint32_t index) noexcept nogil:
    """The record at an index that is known to be in use."""
    return slots.chunks[index // SLOTS_PER_CHUNK] + (index % SLOTS_PER_CHUNK) * slots.record_bytes

cdef inline void *slots_find(const slots_t *slots, uint64_t token) noexcept nogil:
    """The record of a token, or NULL when the token is stale."""
    cdef uint32_t chunk = token_index(token) // SLOTS_PER_CHUNK
    cdef slot_t *slot
    if chunk >= slots.n_chunks or slots.chunks[chunk] == NULL:
        return NULL
    slot = <slot_t *>slots_at(slots, token_index(token))
    return slot if slot.generation == token_generation(token) and slot.generation != 0 else NULL

cdef inline uint64_t slot_token(const slot_t *slot) noexcept nogil:
    """The token of a record that is in use."""
    return (<uint64_t>slot.generation << 32) | slot.index
