"""Ensure that deadlines come back in order, one for each number, and none after it was cancelled."""
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastaccept._timers import Timers
from helpers import REPEATABLE

INT64_MIN, INT64_MAX = -2**63, 2**63 - 1


def popped(timers, now_ms):
    """All numbers that are due, in the order they are given."""
    return list(iter(lambda: timers.pop(now_ms), None))


def timers_of(deadlines):
    timers = Timers()
    for number, due_ms in deadlines.items():
        timers.set(number, due_ms)
    return timers


def test_new_heap_is_empty():
    timers = Timers()
    assert len(timers) == 0
    assert timers.next_ms() is None
    assert timers.pop(INT64_MAX) is None


def test_number_is_due_at_its_deadline_and_not_before():
    timers = timers_of({7: 100})
    assert timers.pop(99) is None
    assert timers.pop(100) == 7
    assert timers.pop(100) is None


def test_numbers_come_in_order_of_deadlines():
    timers = timers_of({0: 50, 1: 10, 2: 40, 3: 20, 4: 30})
    assert popped(timers, 40) == [1, 3, 4, 2]
    assert timers.next_ms() == 50


def test_numbers_of_one_deadline_all_come():
    timers = timers_of(dict.fromkeys(range(100), 5))
    assert sorted(popped(timers, 5)) == list(range(100))


def test_next_is_the_earliest_deadline():
    timers = timers_of({1: 30, 2: 20, 3: 25})
    assert timers.next_ms() == 20
    timers.cancel(2)
    assert timers.next_ms() == 25


MOVES = [(5, [3, 1, 2]), (15, [1, 3, 2]), (25, [1, 2, 3]), (40, [1, 2, 3])]


@pytest.mark.parametrize("moved_to, order", MOVES)
def test_setting_again_moves_the_deadline(moved_to, order):
    timers = timers_of({1: 10, 2: 20, 3: 30})
    timers.set(3, moved_to)
    assert len(timers) == 3
    assert popped(timers, 100) == order


def test_the_earliest_can_be_moved_to_the_end():
    timers = timers_of({1: 10, 2: 20, 3: 30})
    timers.set(1, 40)
    assert popped(timers, 100) == [2, 3, 1]


@pytest.mark.parametrize("cancelled", range(8))
def test_cancelled_number_does_not_come(cancelled):
    timers = timers_of({number: 10 * number for number in range(8)})
    timers.cancel(cancelled)
    assert len(timers) == 7
    assert popped(timers, 100) == [number for number in range(8) if number != cancelled]


def test_cancel_puts_the_last_entry_up_where_its_parent_is_later():
    # Numbers are heap positions here: the last (11, due at 4) is earlier than 7's parent (3, due at 101).
    due = [0, 100, 1, 101, 102, 2, 3, 103, 104, 105, 106, 4]
    timers = timers_of(dict(enumerate(due)))
    timers.cancel(7)
    assert popped(timers, 1000) == [0, 2, 5, 6, 11, 1, 3, 4, 8, 9, 10]


@pytest.mark.parametrize("number", [0, 3, 63, 64, 2**32 - 1])
def test_cancelling_a_number_without_a_deadline_is_no_error(number):
    timers = timers_of({1: 10})
    timers.cancel(number)
    assert popped(timers, 10) == [1]
    timers.cancel(1)
    assert len(timers) == 0


def test_number_can_be_set_again_after_it_came_or_was_cancelled():
    timers = timers_of({1: 10})
    assert timers.pop(10) == 1
    timers.set(1, 20)
    timers.cancel(1)
    timers.set(1, 30)
    assert (len(timers), timers.next_ms(), timers.pop(30)) == (1, 30, 1)


@pytest.mark.parametrize("number", [0, 63, 64, 65, 127, 128, 100_000])
def test_numbers_may_be_far_apart(number):
    timers = timers_of({2: 10, number: 20})
    assert popped(timers, 20) == [2, number]


def test_any_time_of_64_bits_is_a_deadline():
    timers = timers_of({1: INT64_MAX, 2: INT64_MIN, 3: 0, 4: -1})
    assert timers.next_ms() == INT64_MIN
    assert popped(timers, 0) == [2, 4, 3]
    assert popped(timers, INT64_MAX) == [1]


@pytest.mark.parametrize("number", [-1, 2**32])
def test_number_out_of_range_is_refused(number):
    with pytest.raises(OverflowError):
        Timers().set(number, 0)


def test_thousands_of_deadlines_come_in_order():
    rng = random.Random(1)
    deadlines = {number: rng.randrange(1_000_000) for number in range(10_000)}
    timers = timers_of(deadlines)
    for number in rng.sample(range(10_000), 3_000):
        deadlines[number] = rng.randrange(1_000_000)
        timers.set(number, deadlines[number])
    for number in rng.sample(range(10_000), 3_000):
        del deadlines[number]
        timers.cancel(number)
    numbers = popped(timers, 1_000_000)
    assert set(numbers) == set(deadlines) and len(numbers) == len(deadlines)
    assert [deadlines[number] for number in numbers] == sorted(deadlines.values())


class TimersMachine(RuleBasedStateMachine):
    """Timers against a dict of deadlines; among equal deadlines any order will do."""

    numbers = st.integers(0, 40) | st.integers(60, 300)
    times = st.integers(0, 50) | st.integers(INT64_MIN, INT64_MAX)

    def __init__(self):
        super().__init__()
        self.timers = Timers()
        self.deadlines = {}

    @rule(number=numbers, due_ms=times)
    def set(self, number, due_ms):
        self.timers.set(number, due_ms)
        self.deadlines[number] = due_ms

    @rule(first=st.integers(0, 200), n=st.integers(1, 80), due_ms=st.integers(0, 50), step=st.integers(-2, 2))
    def set_many(self, first, n, due_ms, step):
        for i in range(n):
            self.set(first + i, due_ms + i * step)

    @rule(number=numbers)
    def cancel(self, number):
        self.timers.cancel(number)
        self.deadlines.pop(number, None)

    @precondition(lambda self: self.deadlines)
    @rule(which=st.integers(0, 1000))
    def cancel_one_that_is_set(self, which):
        self.cancel(sorted(self.deadlines)[which % len(self.deadlines)])

    @rule(now_ms=times)
    def pop(self, now_ms):
        number = self.timers.pop(now_ms)
        earliest = min(self.deadlines.values(), default=INT64_MAX)
        if number is None:
            assert not self.deadlines or earliest > now_ms
        else:
            assert self.deadlines.pop(number) == earliest <= now_ms

    @rule(now_ms=times)
    def pop_all_that_is_due(self, now_ms):
        due = {number for number, due_ms in self.deadlines.items() if due_ms <= now_ms}
        numbers = popped(self.timers, now_ms)
        assert set(numbers) == due and len(numbers) == len(due)
        came = [self.deadlines.pop(number) for number in numbers]
        assert came == sorted(came)

    @invariant()
    def agrees_with_the_dict(self):
        assert len(self.timers) == len(self.deadlines)
        assert self.timers.next_ms() == min(self.deadlines.values(), default=None)


TestTimersMachine = TimersMachine.TestCase
TestTimersMachine.settings = settings(REPEATABLE, max_examples=150, stateful_step_count=40)
