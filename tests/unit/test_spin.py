"""Ensures that the loop looks for events before it sleeps when it is to, and by default only as long as it is worth it."""

import pytest


def spinning_waits(s):
    """The waits of the next turn."""
    s.backend.waits.clear()
    s.turn()
    return list(s.backend.waits)


def test_spin_looks_for_events_after_events_and_sleeps_after_that(scene):
    s = scene(spin_us=100)
    s.backend.arrive(0)
    assert spinning_waits(s) == [-1]  # nothing had happened before
    assert spinning_waits(s) == [0] * 10  # a look each 10 us
    assert spinning_waits(s) == [-1]


def test_spin_ends_with_the_first_event(scene):
    s = scene(spin_us=100)
    s.backend.arrive(0)
    s.turn()
    s.backend.peer(0).inbox.append(b"x")
    assert spinning_waits(s) == [0]
    assert bytes(s.backend.peer(0).outbox) == b"x"
    assert len(spinning_waits(s)) == 10  # and begins anew


def test_spin_makes_no_timer_late(scene):
    s = scene(spin_us=1_000_000)
    due = s.backend.clock_ms + 2
    s.server.call_later(0.002, s.events.append, "called")
    s.backend.arrive(0)
    s.turn()
    before = s.backend.clock_us
    s.turn()
    assert 2000 <= s.backend.clock_us - before < 2100
    s.backend.clock_ms = due
    s.turn()
    assert s.events == ["called"]


def talk(s):
    """A turn that has a message."""
    s.backend.peer(0).inbox.append(b"x")
    s.turn()


def looks_in_vain(s):
    """Whether the wait after a turn with events looks before it sleeps; nothing comes either way."""
    waits = spinning_waits(s)
    assert waits == [-1] or (waits == [0] and spinning_waits(s) == [-1])
    return waits == [0]


def sleeps_before_the_next_look(s):
    slept = 0
    while not looks_in_vain(s):
        slept += 1
        talk(s)
    talk(s)
    return slept


def test_auto_spin_looks_ever_more_rarely_while_it_finds_nothing(scene):
    s = scene()
    s.backend.arrive(0)
    s.turn()
    assert [sleeps_before_the_next_look(s) for _ in range(9)] == [0, 16, 32, 64, 128, 256, 512, 1024, 1024]


def test_auto_spin_goes_on_while_it_finds_something_and_forgives_what_it_did_not(scene):
    s = scene()
    s.backend.arrive(0)
    s.turn()
    assert [sleeps_before_the_next_look(s) for _ in range(3)] == [0, 16, 32]
    for _ in range(64):  # its pause; the next one would be of 128
        talk(s)
    s.backend.look_us = 1
    message = s.backend.peer(0).inbox
    for _ in range(100):
        s.backend.before_waits.extend([None, lambda: message.append(b"y")])
        assert spinning_waits(s) == [0, 0]
    s.backend.look_us = 10
    assert [sleeps_before_the_next_look(s) for _ in range(2)] == [0, 28]


def test_auto_spin_counts_no_look_that_was_not_needed(scene):
    s = scene()
    s.backend.arrive(0)
    s.turn()
    assert [sleeps_before_the_next_look(s) for _ in range(3)] == [0, 16, 32]
    for _ in range(200):  # each wait after the pause finds a message at the first glance
        talk(s)
    assert [sleeps_before_the_next_look(s) for _ in range(2)] == [0, 128]


@pytest.mark.parametrize("value", [0, 50])
def test_no_spin_without_events_or_when_not_asked_for(scene, value):
    s = scene(spin_us=value)
    assert [spinning_waits(s) for _ in range(3)] == [[-1]] * 3
