"""Ensures that the loop keeps its promises whatever a system reports, in any order: no sockets, a clock that the test moves."""

import errno
import random

import pytest

from fastaccept import ErrorEvent, Limits, Timeouts
from helpers.scene import Scene

PAUSES = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
RETRIES = [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ENETDOWN, errno.EHOSTUNREACH]
FATALS = [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP]
UNKNOWNS = [errno.EXDEV, 159]
OUTCOMES = (
    [(code, "pause") for code in PAUSES] + [(code, "retry") for code in RETRIES] + [(code, "unknown") for code in UNKNOWNS]
)


def test_limit_is_exact_and_ends_with_the_first_release(scene):
    s = scene(limits=Limits(max_connections=3))
    s.backend.arrive(0, 5)
    s.turn(3)
    assert s.loop.active == 3 and s.backend.queues[0] == 2 and s.reasons() == {"limit"}
    s.backend.peer(0).inbox.append(b"")
    s.turn(3)
    assert s.loop.active == 3 and s.backend.queues[0] == 1


def test_limit_is_exact_over_several_listeners(scene):
    s = scene(listeners=3, limits=Limits(max_connections=10))
    for i in range(3):
        s.backend.arrive(i, 20)
    s.turn(5)
    assert s.loop.active == 10
    assert all(s.reasons(i) == {"limit"} for i in range(3))


def test_resume_at_widens_the_gap(scene):
    s = scene(limits=Limits(max_connections=10, resume_at=0.5))
    s.backend.arrive(0, 20)
    s.turn(2)
    for _ in range(4):
        s.backend.peer(0).inbox.append(b"")
        s.turn(3)
    assert s.loop.active == 6 and s.reasons() == {"limit"}
    s.backend.peer(0).inbox.append(b"")
    s.turn(3)
    assert s.loop.active == 10


def test_lowered_limit_cuts_nobody_off_and_raised_limit_lets_in(scene):
    s = scene(limits=Limits(max_connections=10))
    s.backend.arrive(0, 12)
    s.turn(2)
    s.lowered = True
    s.server.limits = Limits(max_connections=4)
    s.turn(2)
    assert s.loop.active == 10 and s.loop.limit == 4
    for _ in range(6):
        s.backend.peer(0).inbox.append(b"")
        s.turn(2)
    assert s.loop.active == 4 and s.reasons() == {"limit"}
    s.server.limits = Limits(max_connections=6)
    s.turn(2)
    assert s.loop.active == 6


@pytest.mark.parametrize("code", PAUSES + UNKNOWNS)
def test_shortage_pauses_reports_once_and_retries_with_growing_delay(scene, code):
    s = scene()
    s.backend.script.extend([(code, "pause" if code in PAUSES else "unknown")] * 1000)
    s.backend.arrive(0, 1)
    tried_at = []
    for _ in range(4000):
        calls = s.server.stats().accept_calls
        s.turn()
        if s.server.stats().accept_calls > calls:
            tried_at.append(s.backend.clock_ms)
        s.backend.advance(1)
    delays = [later - earlier for earlier, later in zip(tried_at, tried_at[1:])]
    # A retry is due after the delay, and a turn takes a millisecond here: 10, 20, 40 ... 640, then 1,000 each.
    assert [round(delay, -1) for delay in delays] == [10, 20, 40, 80, 160, 320, 640, 1000, 1000]
    assert len(s.events) == 1
    event = s.events[0]
    assert isinstance(event, ErrorEvent) and event.exception.errno == code
    assert (event.operation, event.action, event.retry_in_s, event.queued) == ("accept", "paused", 0.01, 1)
    assert s.server.stats().accept_errors == {code: len(tried_at)}
    s.backend.script.clear()
    s.backend.advance(1000)
    s.turn(2)
    assert s.loop.active == 1 and s.reasons() == set()


@pytest.mark.parametrize("code", PAUSES)
def test_release_resumes_at_once(scene, code):
    s = scene()
    s.backend.arrive(0, 1)
    s.turn()
    s.backend.script.append((code, "pause"))
    s.backend.arrive(0, 1)
    s.turn()
    assert s.reasons() == {"resources"}
    s.backend.peer(0).inbox.append(b"")
    s.turn(3)  # the end is seen; the slot is free, and accepting goes on; the client is there
    assert s.loop.active == 1 and s.reasons() == set()


@pytest.mark.parametrize("code", RETRIES)
def test_one_clients_error_is_skipped(scene, code):
    s = scene()
    s.backend.script.extend([(code, "retry")] * 3)
    s.backend.arrive(0, 5)
    s.turn(2)
    assert s.loop.active == 2 and s.reasons() == set() and s.events == []
    assert s.server.stats().accept_errors == {code: 3}


@pytest.mark.parametrize("code", FATALS)
def test_dead_listener_is_reported_and_the_others_live(scene, code):
    s = scene(listeners=2)
    s.backend.script.append((code, "fatal"))
    s.backend.arrive(0, 1)
    s.turn(2)
    assert [(e.exception.errno, e.action) for e in s.events] == [(code, "listener closed")]
    assert s.loop.listener_state(0)[0] == "closed"
    s.backend.arrive(1, 1)
    s.turn()
    assert s.loop.active == 1


def test_unknown_error_backs_off_from_its_own_listener_only(scene):
    s = scene(listeners=2)
    s.backend.script.append((errno.EXDEV, "unknown"))
    s.backend.arrive(0, 1)
    s.turn()
    assert s.reasons(0) == {"resources"} and s.reasons(1) == set()


def test_shortage_of_the_process_pauses_every_listener_and_is_one_report(scene):
    s = scene(listeners=3)
    s.backend.script.append((errno.EMFILE, "pause"))
    s.backend.arrive(1, 1)
    s.turn()
    assert all(s.reasons(i) == {"resources"} for i in range(3))
    assert len(s.events) == 1


@pytest.mark.parametrize("how", ["refuse", "queue"])
def test_no_automatic_resume_undoes_the_users_pause(scene, how):
    s = scene(limits=Limits(max_connections=2))
    s.backend.arrive(0, 2)
    s.turn(2)
    s.server.pause(how)
    s.turn()
    assert s.backend.modes[0] == how and s.reasons() == {"limit", "user"}
    s.backend.peer(0).inbox.append(b"")
    s.turn(3)
    s.backend.advance(10_000)
    s.turn(2)
    assert s.reasons() == {"user"} and s.backend.modes[0] == how and s.loop.active == 1
    s.server.resume()
    s.turn()
    assert s.reasons() == set()


@pytest.mark.parametrize("policy", ["queue", "refuse", "reject"])
def test_policy_at_the_limit_and_when_resources_are_short(scene, policy):
    s = scene(limits=Limits(max_connections=1), when_full=policy)
    s.backend.arrive(0, 3)
    s.turn(3)
    assert s.backend.modes[0] == policy
    assert {"queue": (2, 0), "refuse": (0, 0), "reject": (0, 2)}[policy] == (s.backend.queues[0], s.backend.rejected)
    assert s.server.stats().refused_episodes == (policy == "refuse")
    s.server.limits = Limits(max_connections=None)
    s.turn()
    assert s.backend.modes[0] == "accept"
    s.backend.script.append((errno.EMFILE, "pause"))
    s.backend.arrive(0, 1)
    s.turn()
    assert s.backend.modes[0] == policy


def test_rejecting_that_fails_leaves_the_clients_waiting(scene):
    s = scene(when_full="reject")
    s.backend.script.append((errno.EMFILE, "pause"))
    s.backend.arrive(0, 1)
    s.turn()
    assert s.backend.modes[0] == "reject"


def test_listen_that_fails_on_resume_is_tried_again(scene):
    s = scene()
    s.server.pause("refuse")
    s.turn()
    s.backend.mode_errors.append(errno.ENOMEM)
    s.server._loop.resume()
    s.loop.turn()
    assert len(s.events) == 1 and s.events[0].exception.errno == errno.ENOMEM
    s.backend.advance(20)
    s.loop.turn()
    s.turn()
    assert s.backend.modes[0] == "accept"


def test_pause_and_resume_within_a_turn_is_nobodys_business():
    changes = []
    s = Scene(on_pause=lambda *_: changes.append("pause"), on_resume=lambda *_: changes.append("resume"))
    before = len(s.backend.mode_changes)
    s.loop.pause("refuse")
    s.loop.resume()
    s.turn()
    assert changes == [] and len(s.backend.mode_changes) == before
    s.close()


def test_episodes_are_counted_apart_after_a_quiet_time(scene):
    s = scene()
    for _ in range(2):
        s.backend.script.append((errno.EMFILE, "pause"))
        s.backend.arrive(0, 1)
        s.turn()
        s.backend.advance(5000)
        s.turn(3)
    assert [event.count for event in s.events] == [1, 2]


def test_time_paused_is_kept_by_reason(scene):
    s = scene()
    s.server.pause()
    s.backend.advance(1500)
    s.server.resume()
    assert s.loop.paused_ms(0) == [0, 0, 0, 0, 1500, 0]


def test_idle_first_byte_write_stall_and_close_deadlines():
    ended = []
    s = Scene(
        timeouts=Timeouts(idle=10, first_byte=2, write_stall=3, close=4),
        limits=Limits(max_connections=None, write_high_water=10),
        on_close=lambda conn, error: ended.append((s.backend.clock_ms - start, str(error))),
    )
    start = s.backend.clock_ms
    s.backend.arrive(0, 3)
    s.turn()
    silent, stalled, idle = (s.backend.peer(i) for i in range(3))
    idle.inbox.append(b"x")
    stalled.room = 0
    stalled.inbox.append(b"y" * 20)
    s.turn()
    for _ in range(12_000):
        s.backend.advance(1)
        s.turn()
    assert [(at, text.split("] ")[1][:20]) for at, text in ended] == [
        (2000, "no byte came within "),
        (3000, "the peer took nothin"),
        (10_000, "idle for longer than"),
    ]
    assert (silent.closed, stalled.closed, idle.closed) == ("rst", "rst", "fin")
    s.close()


class Closing:
    """A connection that the server closes after its answer, over a system that says how much is unacknowledged."""

    def __init__(self, unsent, close_s=30):
        self.ended = []
        self.scene = Scene(
            timeouts=Timeouts(close=close_s),
            on_data=lambda conn, data: (conn.write(data), conn.close()),
            on_close=lambda conn, error: self.ended.append((self.scene.backend.clock_ms - self.start_ms, error)),
        )
        self.scene.backend.arrive(0, 1)
        self.scene.turn()
        self.peer = self.scene.backend.peer()
        self.peer.unsent = unsent
        self.peer.inbox.append(b"question")
        self.start_ms = self.scene.backend.clock_ms
        self.scene.turn()

    def pass_ms(self, ms):
        for _ in range(ms):
            self.scene.backend.advance(1)
            self.scene.turn()
        return self.ended


def test_close_where_the_system_does_not_tell_what_has_arrived():
    """The peer never closes. All is sent, so it is no error and no reset, and it takes no longer than a moment."""
    c = Closing(unsent=-1)
    assert c.peer.shut and bytes(c.peer.outbox) == b"question" and not c.ended
    assert c.pass_ms(1999) == [] and c.pass_ms(1) == [(2000, None)]
    assert c.peer.closed == "fin" and c.scene.server.stats().timeouts == 0
    c.scene.close()


def test_close_where_the_system_does_not_tell_waits_for_quiet():
    """Input that comes after the close would make it a reset, so it is waited for that there is none."""
    c = Closing(unsent=-1)
    for _ in range(5):
        assert c.pass_ms(1500) == []
        c.peer.inbox.append(b"more")
    c.scene.turn()
    assert c.pass_ms(1999) == [] and c.pass_ms(1) == [(9500, None)]
    assert c.peer.closed == "fin"
    c.scene.close()


def test_close_where_the_system_does_not_tell_wakes_nobody_meanwhile():
    c = Closing(unsent=-1)
    waited = []
    while not c.ended:
        c.scene.turn()
        waited.append(c.scene.backend.waits[-1])
        c.scene.backend.advance(waited[-1])
    assert [ms for ms in waited if ms] == [20, 1980]
    c.scene.close()


@pytest.mark.parametrize("unsent", [1, 100_000])
def test_close_waits_for_what_is_not_acknowledged(unsent):
    c = Closing(unsent, close_s=4)
    assert c.pass_ms(3000) == []
    c.peer.unsent = 0
    assert c.pass_ms(20) == [(3020, None)]
    late = Closing(unsent, close_s=4)
    assert late.pass_ms(3999) == []
    assert [(at, type(error)) for at, error in late.pass_ms(1)] == [(4000, TimeoutError)]
    c.scene.close(), late.scene.close()


def test_slow_reader_stays_bounded():
    s = Scene(limits=Limits(max_connections=None, write_high_water=1000))
    s.backend.arrive(0, 1)
    s.turn()
    peer = s.backend.peer()
    peer.room = 0
    peer.inbox.extend([b"z" * 500] * 100)
    s.turn(50)
    assert s.server.stats().write_buffered_bytes == 1500 and not peer.reading
    peer.room = None
    s.turn(400)
    assert bytes(peer.outbox) == b"z" * 50_000 and peer.reading
    s.close()


def test_write_beyond_the_measure_aborts_the_connection():
    errors = []
    limits = Limits(max_connections=None, write_high_water=100, max_write_buffer=1000)
    s = Scene(limits=limits, on_close=lambda conn, error: errors.append(error))
    s.backend.arrive(0, 1)
    s.turn()
    peer = s.backend.peer()
    peer.room = 0
    conn = s.server.connections[0]
    results = [conn.write(b"w" * 600) for _ in range(3)]
    s.turn(2)
    assert results == [False, False, False] and peer.closed == "rst"
    assert type(errors[0]).__name__ == "WriteBufferFull" and s.server.stats().write_buffered_bytes == 0
    s.close()


def test_stale_events_are_dropped(scene):
    """The connection ends while events for it are still in the batch."""
    s = scene(seed=3, on_connect=lambda conn: conn.abort())
    s.backend.arrive(0, 50)
    s.turn(4)
    assert s.loop.active == 0 and s.server.stats().closed == 50


@pytest.mark.parametrize(
    ("asked", "answered", "answers_out"),
    [
        (1, 1, [0] * 8 + [8] * 2),
        (8_000, 8_000, [0] * 4 + [4] * 4 + [8] * 2),
        (30_000, 1, list(range(10))),
        (1, 20_000, list(range(10))),
    ],
    ids=["short", "long", "longest", "long answers"],
)
def test_input_comes_and_answers_leave_a_few_together(scene, asked, answered, answers_out):
    seen = []

    def on_data(conn, data):
        if is_measured:
            assert len(data) == asked
            seen.append(sum(bool(peer.outbox) for peer in s.backend.peers.values()))
            conn.write(bytes(answered))

    s = scene(on_data=on_data)
    s.backend.arrive(0, 10)
    s.turn(2)
    for is_measured in False, True:  # the first messages find buffers that may be too small
        for peer in s.backend.peers.values():
            peer.inbox.append(bytes(asked))
        s.turn(1 if is_measured else 9)
    assert seen == answers_out
    assert all(len(peer.outbox) == answered for peer in s.backend.peers.values())


def test_a_buffer_has_more_room_once_it_was_full(scene):
    got = []
    s = scene(on_data=lambda conn, data: got.append(len(data)))
    s.backend.arrive(0, 1)
    s.turn(2)
    [peer] = s.backend.peers.values()
    for size in (4095, 4096, 69_632, 70_000):
        peer.inbox.append(bytes(size))
        s.turn(2)
    assert got == [4095, 4096, 69_632, 69_632, 368]


class Neighbours:
    """Two connections; both have sent when the loop turns, and the first one's callback does something to the second."""

    def __init__(self, scene, inbox, what):
        self.got, self.ends, conns = [], [], []

        def on_data(conn, data):
            if conn is conns[0]:
                what(conns[1])
            else:
                self.got.append(data)

        self.scene = scene(
            on_connect=conns.append,
            on_data=on_data,
            on_eof=lambda conn: self.got.append("end"),
            on_close=lambda conn, error: self.ends.append((conns.index(conn), error)),
        )
        self.scene.backend.arrive(0, 2)
        self.scene.turn(2)
        self.first, self.second = self.scene.backend.peers.values()
        self.conn = conns[1]
        self.first.inbox.append(b"go")
        self.second.inbox.extend(inbox)
        self.scene.turn()


def test_input_of_a_connection_that_a_neighbour_pauses_is_held(scene):
    n = Neighbours(scene, [b"older", b"newer", b""], lambda conn: conn.pause_reading())
    n.scene.turn(3)
    assert n.got == [] and n.conn.bytes_received == 5
    n.conn.resume_reading()
    n.conn.pause_reading()
    n.scene.turn(2)
    assert n.got == []
    n.conn.resume_reading()
    n.scene.turn(4)
    assert n.got == [b"older", b"newer", "end"] and n.ends == [(1, None)]


def test_end_of_a_connection_that_a_neighbour_pauses_is_held(scene):
    n = Neighbours(scene, [b""], lambda conn: conn.pause_reading())
    n.scene.turn(3)
    assert n.got == [] and n.ends == []
    n.conn.resume_reading()
    n.scene.turn(2)
    assert n.got == ["end"] and n.ends == [(1, None)]


def test_error_of_a_connection_that_a_neighbour_pauses_ends_it(scene):
    n = Neighbours(scene, [errno.ECONNRESET], lambda conn: conn.pause_reading())
    n.scene.turn(2)
    assert n.got == [] and [(i, type(error)) for i, error in n.ends] == [(1, ConnectionResetError)]


@pytest.mark.parametrize("inbox", [[b"x", b""], [b""]], ids=["data", "end"])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_input_of_a_connection_that_a_neighbour_closes_is_dropped(scene, how, inbox):
    n = Neighbours(scene, inbox, lambda conn: getattr(conn, how)())
    n.scene.turn(4)
    assert n.got == [] and n.ends == [(1, None)]
    assert n.second.closed == ("fin" if how == "close" else "rst")


def test_input_that_was_held_goes_with_its_connection(scene):
    n = Neighbours(scene, [bytes(4000)], lambda conn: conn.pause_reading())
    held = n.scene.server.stats().user_space_bytes
    n.conn.abort()
    n.scene.turn(2)
    assert n.got == [] and n.ends == [(1, None)]
    assert n.scene.server.stats().user_space_bytes == held - 4000


@pytest.mark.parametrize("seed", range(20))
def test_handle_that_is_used_while_its_connection_is_let_go(scene, seed):
    """The last events of a connection, of one that still holds its handle, and of one that gets its place, in any order."""
    kept = []

    def on_data(conn, data):
        if data == b"keep":
            kept.append(conn)
        elif data == b"abort":
            conn.abort()
        else:
            kept[0].pause_reading()
            conn.write(data)

    s = scene(seed=seed, on_data=on_data)
    s.backend.arrive(0, 2)
    s.turn(2)
    first, second = s.backend.peers.values()
    first.inbox.extend([b"keep", b"abort"])
    s.turn(2)
    assert first.closed == "rst"
    second.inbox.append(b"use")
    s.backend.arrive(0, 1)
    s.turn()
    s.backend.peer(-1).inbox.append(b"hello")
    s.turn()
    assert second.outbox == b"use" and s.backend.peer(-1).outbox == b"hello"


@pytest.mark.parametrize("seed", range(20))
def test_connection_is_let_go_though_ctrl_c_comes_first(scene, seed):
    ended = []

    def on_close(conn, error):
        ended.append(error)
        if len(ended) == 2:
            raise KeyboardInterrupt

    s = scene(seed=seed, on_data=lambda conn, data: conn.abort(), on_close=on_close)
    s.backend.arrive(0, 2)
    s.turn(2)
    first, second = s.backend.peers.values()
    first.inbox.append(b"x")
    s.turn()
    second.inbox.append(b"x")
    with pytest.raises(KeyboardInterrupt):
        s.turn(2)
    s.turn(2)
    assert s.loop.active == 0


def test_callback_exception_aborts_its_connection_and_the_loop_goes_on():
    def fail(conn, data):
        raise ValueError("no")

    s = Scene(on_data=fail)
    s.backend.arrive(0, 2)
    s.turn()
    first, second = s.backend.peer(0), s.backend.peer(1)
    first.inbox.append(b"a")
    s.turn(2)
    assert first.closed == "rst" and second.closed is None
    assert [(event.operation, str(event.exception)) for event in s.events] == [("on_data", "no")]
    s.close()


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_anything(scene, seed):
    """Every outcome of accept, arrivals, data, ends, resets, pauses and limits, shuffled."""
    rng = random.Random(seed)
    policy = rng.choice(["queue", "refuse", "reject"])
    s = scene(listeners=2, seed=seed, capacity=60, limits=Limits(max_connections=40), when_full=policy)
    for _ in range(600):
        action = rng.randrange(10)
        open_peers = [peer for peer in s.backend.peers.values() if peer.closed is None]
        if action < 3:
            s.backend.arrive(rng.randrange(2), rng.randrange(1, 10))
        elif action == 3:
            s.backend.script.extend(rng.choices([*OUTCOMES, None, None, None], k=3))
        elif action < 7 and open_peers:
            peer = rng.choice(open_peers)
            peer.room = rng.choice([None, 0, 3, -errno.EPIPE, None])
            peer.inbox.append(rng.choice([b"data", b"", errno.ECONNRESET, b"more" * 50]))
        elif action == 7:
            s.server.pause(rng.choice(["refuse", "queue"]))
        elif action == 8:
            s.server.resume()
        else:
            s.backend.advance(rng.choice([1, 15, 700, 3000]))
        s.turn()
    s.server.resume()
    s.backend.script.clear()
    for peer in list(s.backend.peers.values()):
        peer.room = None
        peer.inbox.append(b"")
    s.backend.advance(40_000)
    s.turn(10)
    s.backend.arrive(0, 1)
    s.backend.advance(2000)
    s.turn(5)
    assert s.reasons(0) == set(), "never stuck"
    assert s.loop.active >= 1


def test_a_million_connections_leak_nothing(scene):
    s = scene(limits=Limits(max_connections=500), on_data=None, on_connect=lambda conn: conn.close())
    held = s.server.stats().user_space_bytes
    while s.server.stats().accepted < 1_000_000:
        s.backend.arrive(0, 500)
        for _ in range(16):
            s.loop.turn()
        s.check_few()
    stats = s.server.stats()
    assert stats.accepted == stats.closed + stats.active
    assert stats.user_space_bytes <= held + 500_000


def test_wakeup_that_finds_no_call_is_not_the_last(scene):
    s = scene()
    for _ in range(3):
        events = s.server.stats().events
        s.loop.wake()
        s.turn()
        assert s.server.stats().events == events + 1
