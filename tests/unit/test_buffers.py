"""Ensure that a write queue offers the bytes that were appended and not consumed, in order, uncopied."""
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastaccept._buffers import OutQueue
from helpers import REPEATABLE

OUTQ_INLINE = 6                      # as in _buffers.pxd
SLICES_MAX = 64


def queue_of(*items):
    queue = OutQueue()
    for item in items:
        queue.append(item)
    return queue


def numbered(n):
    """Items that differ in bytes and in length."""
    return [b"%d," % i for i in range(n)]


def test_new_queue_is_empty():
    queue = OutQueue()
    assert len(queue) == 0
    assert queue.slices() == []


def test_items_are_offered_in_order():
    queue = queue_of(b"one", b"two", b"three")
    assert queue.slices() == [b"one", b"two", b"three"]
    assert len(queue) == 11


@pytest.mark.parametrize("n, rest", [
    (0, [b"abc", b"de", b"f"]),
    (1, [b"bc", b"de", b"f"]),
    (2, [b"c", b"de", b"f"]),
    (3, [b"de", b"f"]),
    (4, [b"e", b"f"]),
    (5, [b"f"]),
    (6, []),
])
def test_what_is_consumed_is_not_offered_again(n, rest):
    queue = queue_of(b"abc", b"de", b"f")
    queue.consume(n)
    assert queue.slices() == rest
    assert len(queue) == 6 - n


def test_item_is_consumed_in_several_steps():
    queue = queue_of(b"abcdef", b"g")
    for rest in (b"bcdef", b"cdef", b"def", b"ef", b"f"):
        queue.consume(1)
        assert queue.slices() == [rest, b"g"]
    queue.consume(1)
    assert queue.slices() == [b"g"]


def test_empty_queue_can_be_filled_again():
    queue = queue_of(*numbered(20))
    queue.consume(len(queue))
    queue.append(b"again")
    assert queue.slices() == [b"again"]
    assert len(queue) == 5


def test_consuming_more_than_waits_is_refused():
    queue = queue_of(b"abc")
    with pytest.raises(ValueError, match="n is 4; only 3 bytes wait"):
        queue.consume(4)
    assert queue.slices() == [b"abc"]


@pytest.mark.parametrize("capacity, offered", [(0, 0), (1, 1), (2, 2), (10, 10), (SLICES_MAX, 10), (999, 10)])
def test_no_more_slices_than_there_is_room_for(capacity, offered):
    items = numbered(10)
    assert queue_of(*items).slices(capacity) == items[:offered]


def test_at_most_64_slices_at_once():
    items = numbered(200)
    queue = queue_of(*items)
    assert queue.slices() == items[:SLICES_MAX]
    queue.consume(len(b"".join(items[:SLICES_MAX])))
    assert queue.slices() == items[SLICES_MAX:2 * SLICES_MAX]


@pytest.mark.parametrize("n", [OUTQ_INLINE + more for more in (-1, 0, 1, 6, 7, 54)])
@pytest.mark.parametrize("sent", range(OUTQ_INLINE))
def test_growing_keeps_what_waits(n, sent):
    items = numbered(n)
    queue = queue_of(*items[:OUTQ_INLINE - 1])
    queue.consume(len(b"".join(items[:sent])))
    for item in items[OUTQ_INLINE - 1:]:
        queue.append(item)
    assert queue.slices() == items[sent:]


def test_slow_reader_is_served_in_order():
    queue = OutQueue()
    waiting = bytearray()
    for i in range(3_000):           # 3 items in, about 2 out
        for item in (b"%d" % i, b"x" * (i % 7), b"."):
            queue.append(item)
            waiting += item
        offered = b"".join(queue.slices())
        assert waiting.startswith(offered)
        n = min(len(waiting), 5)
        queue.consume(n)
        del waiting[:n]
    while waiting:
        offered = b"".join(queue.slices())
        assert offered and waiting.startswith(offered)
        queue.consume(len(offered))
        del waiting[:len(offered)]
    assert len(queue) == 0 and queue.slices() == []


def test_empty_item_takes_no_place():
    queue = queue_of(*[b""] * (2 * SLICES_MAX), b"x", b"", b"y")
    assert queue.slices() == [b"x", b"y"]
    queue.consume(1)
    assert queue.slices() == [b"y"]


class BytesSubclass(bytes):
    pass


@pytest.mark.parametrize("item", [None, "text", bytearray(b"x"), memoryview(b"x"), BytesSubclass(b"x")])
def test_only_exact_bytes_are_taken(item):
    queue = OutQueue()
    with pytest.raises(TypeError):
        queue.append(item)
    assert len(queue) == 0


def test_item_is_held_once_until_it_is_sent_whole():
    item = b"%d bytes" % 1000        # made here, so that nobody else holds it
    before = sys.getrefcount(item)
    queue = queue_of(item, b"rest")
    assert sys.getrefcount(item) == before + 1
    queue.consume(len(item) - 1)
    assert sys.getrefcount(item) == before + 1
    queue.consume(1)
    assert sys.getrefcount(item) == before


@pytest.mark.parametrize("n", [1, OUTQ_INLINE, 50])
def test_dropped_queue_gives_back_what_it_holds(n):
    item = b"%d bytes" % 1000
    before = sys.getrefcount(item)
    queue = queue_of(b"sent", *[item] * n)
    queue.consume(5)
    assert sys.getrefcount(item) == before + n
    del queue
    assert sys.getrefcount(item) == before


class OutQueueMachine(RuleBasedStateMachine):
    """OutQueue against a bytearray."""

    def __init__(self):
        super().__init__()
        self.queue = OutQueue()
        self.waiting = bytearray()

    @rule(item=st.binary(max_size=20))
    def append(self, item):
        self.queue.append(item)
        self.waiting += item

    @rule(items=st.lists(st.binary(max_size=3), min_size=5, max_size=100))
    def append_many(self, items):
        for item in items:
            self.append(item)

    @precondition(lambda self: self.waiting)
    @rule(share=st.floats(0, 1))
    def consume(self, share):
        n = round(share * len(self.waiting))
        self.queue.consume(n)
        del self.waiting[:n]

    @rule(capacity=st.integers(1, SLICES_MAX))
    def send(self, capacity):
        n = len(b"".join(self.queue.slices(capacity)))
        assert n > 0 or not self.waiting
        self.queue.consume(n)
        del self.waiting[:n]

    @invariant()
    def offers_the_front_of_the_bytearray(self):
        slices = self.queue.slices()
        offered = b"".join(slices)
        assert len(self.queue) == len(self.waiting)
        assert b"" not in slices
        assert self.waiting.startswith(offered)
        assert len(slices) == SLICES_MAX or offered == self.waiting


TestOutQueueMachine = OutQueueMachine.TestCase
TestOutQueueMachine.settings = settings(REPEATABLE, max_examples=150, stateful_step_count=40)
