"""Ensure that a token finds its own record or nothing, and that a table that shrinks gives memory back."""
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastaccept._slots import Slots
from helpers import REPEATABLE

SLOTS_PER_CHUNK = 1024                              # as in _slots.pxd
RECORD_BYTES = 96
CHUNK_BYTES = SLOTS_PER_CHUNK * RECORD_BYTES        # far more than the directory of a small table


def index_of(token):
    return token & 0xFFFFFFFF


def generation_of(token):
    return token >> 32


def chunk_of(token):
    return index_of(token) // SLOTS_PER_CHUNK


def chunks_held(slots):
    return slots.bytes // CHUNK_BYTES


def filled(chunks):
    """A table of full chunks, and its tokens in order of index."""
    slots = Slots(RECORD_BYTES)
    return slots, [slots.alloc() for _ in range(chunks * SLOTS_PER_CHUNK)]


def test_new_table_holds_nothing():
    slots = Slots()
    assert (slots.in_use, slots.bytes) == (0, 0)
    assert not slots.is_current(0)


def test_token_is_generation_and_index():
    slots = Slots()
    tokens = [slots.alloc() for _ in range(3)]
    assert [index_of(token) for token in tokens] == [0, 1, 2]
    assert [generation_of(token) for token in tokens] == [1, 2, 3]


def test_token_is_current_until_it_is_freed():
    slots = Slots()
    token = slots.alloc()
    assert slots.is_current(token) and slots.in_use == 1
    slots.free(token)
    assert not slots.is_current(token) and slots.in_use == 0


def test_stale_token_does_not_find_the_next_record_of_its_slot():
    slots = Slots()
    dead = slots.alloc()
    slots.free(dead)
    alive = slots.alloc()
    assert index_of(alive) == index_of(dead)
    assert slots.is_current(alive) and not slots.is_current(dead)


def test_freeing_a_stale_token_changes_nothing():
    slots = Slots()
    dead = slots.alloc()
    slots.free(dead)
    slots.free(dead)
    alive = slots.alloc()
    slots.free(dead)
    assert slots.is_current(alive) and slots.in_use == 1
    assert index_of(slots.alloc()) != index_of(alive)


@pytest.mark.parametrize("token", [
    pytest.param(0, id="generation 0 of a record in use"),
    pytest.param(1, id="generation 0 of a free record"),
    pytest.param((1 << 32) | 1, id="generation in use elsewhere"),
    pytest.param(1 << 33, id="generation not yet given out"),
    pytest.param((1 << 32) | SLOTS_PER_CHUNK, id="chunk not allocated"),
    pytest.param((1 << 32) | 50 * SLOTS_PER_CHUNK, id="beyond the directory"),
    pytest.param(0xFFFFFFFF, id="TOKEN_WAKEUP"),
    pytest.param(2**64 - 1, id="largest"),
])
def test_token_that_was_never_given_out_finds_nothing(token):
    slots = Slots()
    alive = slots.alloc()
    assert not slots.is_current(token)
    slots.free(token)
    assert slots.is_current(alive) and slots.in_use == 1


def test_token_of_a_chunk_given_back_finds_nothing():
    slots, tokens = filled(2)
    for token in tokens:
        slots.free(token)
    assert chunks_held(slots) == 1
    assert not any(slots.is_current(token) for token in tokens)


def test_generations_are_never_given_twice():
    slots = Slots()
    rng = random.Random(1)
    alive, seen = [], set()
    for _ in range(6_000):
        token = slots.alloc()
        assert generation_of(token) not in seen | {0}
        seen.add(generation_of(token))
        alive.append(token)
        if rng.random() < 0.5:
            slots.free(alive.pop(rng.randrange(len(alive))))
    assert slots.in_use == len(alive)


def test_thousands_of_records_are_found_each_under_its_own_token():
    slots = Slots(RECORD_BYTES)
    tokens = [slots.alloc() for _ in range(5_500)]
    assert sorted(map(index_of, tokens)) == list(range(5_500))
    assert all(map(slots.is_current, tokens))
    assert slots.in_use == 5_500 and chunks_held(slots) == 6
    for token in tokens[::2]:
        slots.free(token)
    assert [slots.is_current(token) for token in tokens] == [False, True] * 2_750
    assert slots.in_use == 2_750


def test_lowest_chunk_with_room_is_used_first():
    slots, tokens = filled(4)
    for chunk in (3, 0, 2):
        slots.free(tokens[chunk * SLOTS_PER_CHUNK + 5])
    assert [chunk_of(slots.alloc()) for _ in range(4)] == [0, 2, 3, 4]


def test_chunk_given_back_is_the_next_to_be_opened():
    slots, tokens = filled(3)
    for token in tokens[SLOTS_PER_CHUNK:]:          # chunk 1 stays as the spare, chunk 2 is given back
        slots.free(token)
    refill = [chunk_of(slots.alloc()) for _ in range(2 * SLOTS_PER_CHUNK)]
    assert refill == [1] * SLOTS_PER_CHUNK + [2] * SLOTS_PER_CHUNK


def test_chunk_with_one_record_in_use_is_kept():
    slots, tokens = filled(4)
    last = tokens.pop()
    for token in tokens:
        slots.free(token)
    assert slots.is_current(last) and slots.in_use == 1
    assert chunks_held(slots) == 2                  # its own, and the spare


@pytest.mark.parametrize("order", ["oldest first", "newest first", "any"])
def test_memory_is_given_back_when_all_are_freed(order):
    slots, tokens = filled(6)
    assert chunks_held(slots) == 6
    if order == "any":
        random.Random(2).shuffle(tokens)
    for token in reversed(tokens) if order == "newest first" else tokens:
        slots.free(token)
    assert slots.in_use == 0
    assert chunks_held(slots) == 1


@pytest.mark.parametrize("order", ["oldest first", "newest first", "any"])
def test_spare_chunk_serves_the_next_record(order):
    slots, tokens = filled(6)
    if order == "any":
        random.Random(3).shuffle(tokens)
    for token in reversed(tokens) if order == "newest first" else tokens:
        slots.free(token)
    held = slots.bytes
    token = slots.alloc()
    assert slots.bytes == held
    slots.free(token)
    assert slots.bytes == held


@pytest.mark.parametrize("record_bytes", [0, 7, 65537])
def test_record_size_out_of_range_is_refused(record_bytes):
    with pytest.raises(ValueError, match=f"record_bytes is {record_bytes}"):
        Slots(record_bytes)


def test_record_size_decides_the_memory():
    small, large = Slots(8), Slots(65536)
    small.alloc()
    large.alloc()
    assert large.bytes - small.bytes == SLOTS_PER_CHUNK * (65536 - 8)


class SlotsMachine(RuleBasedStateMachine):
    """Slots against a dict of tokens by index; records come and go by the hundred, so that chunks do too."""

    def __init__(self):
        super().__init__()
        self.slots = Slots(RECORD_BYTES)
        self.alive = {}
        self.dead = []
        self.generation = 0

    def used_by_chunk(self):
        used = [0] * (2 + max(self.alive, default=0) // SLOTS_PER_CHUNK)
        for index in self.alive:
            used[index // SLOTS_PER_CHUNK] += 1
        return used

    @rule(n=st.sampled_from([1, 2, 700, 1500]))
    def alloc(self, n):
        used = [*self.used_by_chunk(), 0, 0]
        for _ in range(n):
            token = self.slots.alloc()
            assert index_of(token) not in self.alive
            assert generation_of(token) == self.generation + 1
            lowest = next(chunk for chunk, count in enumerate(used) if count < SLOTS_PER_CHUNK)
            assert chunk_of(token) == lowest
            used[lowest] += 1
            self.alive[index_of(token)] = token
            self.generation += 1

    @precondition(lambda self: self.alive)
    @rule(start=st.floats(0, 1), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]), backwards=st.booleans())
    def free(self, start, share, backwards):
        indexes = sorted(self.alive)
        first = int(start * (len(indexes) - 1))
        chosen = indexes[first:first + 1 + int(share * len(indexes))]
        for index in reversed(chosen) if backwards else chosen:
            token = self.alive.pop(index)
            self.slots.free(token)
            self.dead.append(token)

    @precondition(lambda self: self.dead)
    @rule(which=st.integers(0, 2**32))
    def free_stale(self, which):
        held = self.slots.bytes
        self.slots.free(self.dead[which % len(self.dead)])
        assert self.slots.bytes == held

    @invariant()
    def finds_what_the_dict_finds(self):
        assert self.slots.in_use == len(self.alive)
        assert all(map(self.slots.is_current, self.alive.values()))
        assert not any(map(self.slots.is_current, self.dead))

    @invariant()
    def holds_one_empty_chunk_at_most(self):
        busy = sum(1 for count in self.used_by_chunk() if count)
        assert busy <= chunks_held(self.slots) <= busy + 1


TestSlotsMachine = SlotsMachine.TestCase
TestSlotsMachine.settings = settings(REPEATABLE, max_examples=25, stateful_step_count=20)
