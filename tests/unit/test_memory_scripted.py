"""Ensures that accepting pauses while the kernel's memory is at its limit, and that nobody looks at it more often than is needed."""

import functools

import pytest

from fastaccept import Limits
from helpers.scene import Scene


class FakeMemory:
    """What the kernel holds, as the test says; counts how often it is asked."""

    def __init__(self, bytes_in_use):
        self.bytes_in_use = bytes_in_use
        self.looks = 0

    def used(self):
        self.looks += 1
        return self.bytes_in_use

    def limit(self, wanted):
        return wanted

    def open(self):
        pass

    close = open


class MemoryScene(Scene):
    """A server with a limit of 1,600 bytes of the kernel's memory."""

    def __init__(self, bytes_in_use=0, limit=1600, max_connections=None, **options):
        self.changes = []
        options.setdefault("on_pause", lambda listener, reasons: self.changes.append(set(reasons)))
        options.setdefault("on_resume", lambda listener: self.changes.append("resume"))
        super().__init__(**options)
        self.server._memory.close()
        self.memory = self.server._memory = FakeMemory(bytes_in_use)
        self.server.limits = Limits(max_connections=max_connections, max_kernel_memory=limit)


@pytest.fixture
def memory_scene(scene):
    return functools.partial(scene, MemoryScene)


@pytest.mark.parametrize("policy", ["queue", "refuse", "reject"])
def test_memory_at_its_limit_pauses_every_listener_as_when_full_says(memory_scene, policy):
    s = memory_scene(listeners=2, when_full=policy)
    s.memory.bytes_in_use = 1600
    s.backend.advance(100)
    s.backend.arrive(0, 1)
    s.turn()
    assert s.reasons(0) == s.reasons(1) == {"memory"} and s.changes == [{"memory"}, {"memory"}]
    assert s.backend.modes == {0: policy, 1: policy}
    stats = s.server.stats()
    assert (stats.kernel_memory, stats.kernel_memory_limit, stats.pauses) == (1600, 1600, 2)
    s.backend.advance(1000)
    s.memory.bytes_in_use = 1501                           # wavering about the limit is not enough
    s.turn()
    assert s.reasons(0) == {"memory"}
    s.backend.advance(1000)
    s.memory.bytes_in_use = 1500
    s.turn()
    assert s.reasons(0) == s.reasons(1) == set() and s.changes[2:] == ["resume", "resume"]
    assert s.loop.paused_ms(0)[2] == 2000 and s.events == []


def test_memory_is_looked_at_ten_times_a_second_at_most(memory_scene):
    s = memory_scene()
    before = s.memory.looks
    for _ in range(1000):
        s.backend.arrive(0, 1)
        s.turn()
        s.backend.advance(1)
    assert s.server.stats().accepted == 1000 and s.memory.looks - before - 1 == 9      # one by stats()


def test_memory_is_not_looked_at_by_an_idle_server(memory_scene):
    s = memory_scene(bytes_in_use=1599, spin_us=0)
    s.backend.arrive(0, 1)
    s.turn()
    s.backend.advance(200)
    s.turn()
    before = s.memory.looks
    for _ in range(100):
        s.backend.peer().inbox.append(b"work")
        s.turn()
        s.backend.advance(1000)
    assert s.memory.looks == before and set(s.backend.waits) == {-1}


def test_memory_is_looked_at_each_second_while_it_pauses(memory_scene):
    s = memory_scene(bytes_in_use=2000)
    assert s.reasons() == {"memory"}                       # before anybody came
    before = s.memory.looks
    for _ in range(10):
        s.turn()
        assert s.backend.waits[-1] == 1000
        s.backend.advance(1000)
        s.turn()
    assert s.memory.looks - before == 10
    s.memory.bytes_in_use = 0
    s.backend.advance(1000)
    s.turn()
    assert s.reasons() == set()
    s.turn()
    assert s.backend.waits[-1] == -1


def test_memory_is_looked_at_soon_after_a_release(memory_scene):
    s = memory_scene(spin_us=0)
    s.backend.arrive(0, 5)
    s.turn()
    s.memory.bytes_in_use = 1600
    s.backend.advance(100)
    s.backend.arrive(0, 1)
    s.turn()
    assert s.reasons() == {"memory"}
    s.memory.bytes_in_use = 1000
    s.backend.advance(10)
    s.backend.peer(0).inbox.append(b"")
    s.turn(2)
    assert s.reasons() == {"memory"} and s.backend.waits[-1] <= 1000
    s.turn()
    assert s.backend.waits[-1] == 90
    s.backend.advance(90)
    s.turn()
    assert s.reasons() == set()


def test_memory_that_is_unknown_pauses_nothing(memory_scene):
    s = memory_scene(bytes_in_use=None)
    assert s.reasons() == set() and s.server.stats().kernel_memory is None
    s.memory.bytes_in_use = 5000
    s.server.limits = Limits(max_connections=None, max_kernel_memory=5000)
    assert s.reasons() == {"memory"}
    s.memory.bytes_in_use = None
    s.backend.advance(1000)
    s.turn()
    assert s.reasons() == set()


@pytest.mark.parametrize("limit", [10_000, None])
def test_memory_limit_set_anew_holds_at_once(memory_scene, limit):
    s = memory_scene(bytes_in_use=2000)
    assert s.reasons() == {"memory"}
    s.server.limits = Limits(max_connections=None, max_kernel_memory=limit)
    assert s.reasons() == set() and s.server.stats().kernel_memory_limit == limit
    looks = s.memory.looks
    s.backend.advance(1000)
    s.backend.arrive(0, 3)
    s.turn()
    assert s.loop.active == 3 and s.memory.looks - looks == (limit is not None)


def test_memory_and_limit_end_by_themselves(memory_scene):
    s = memory_scene(bytes_in_use=0, max_connections=2)
    s.backend.arrive(0, 3)
    s.memory.bytes_in_use = 1600
    s.backend.advance(100)
    s.turn()
    assert s.reasons() == {"limit", "memory"} and s.backend.queues[0] == 1
    s.memory.bytes_in_use = 0
    s.backend.advance(1000)
    s.turn()
    assert s.reasons() == {"limit"}
    s.backend.peer(0).inbox.append(b"")
    s.turn(3)
    assert s.loop.active == 2 and s.backend.queues[0] == 0
    assert s.changes == [{"limit", "memory"}, {"limit"}, "resume", {"limit"}]
