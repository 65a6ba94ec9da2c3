"""Ensure that whatever AcceptEx answers, and wherever, the server hears of it once, accepts again, and lets no client hang."""
import socket
import sys
import time

import pytest

import fastaccept

if sys.platform != "win32":
    pytest.skip("AcceptEx is Windows'", allow_module_level=True)

from fastaccept._iocp import IocpBackend
from fastaccept._iocp_faults import Faults
from helpers.net import echo, is_answered, receive, receive_all, wait_until

SHORT = [4, 8, 1450, 10022, 10024, 10055]              # a resource is short
GONE = [64, 121, 676, 1236, 10053, 10054]              # that client is gone
POINTS = ["socket", "accept", "accepted", "update"]    # where an accept can fail


@pytest.fixture
def faulty(serve):
    """faulty(**options) -> a running server, and the Faults of its backend."""

    def start(**options):
        backend = IocpBackend()
        faults = Faults(backend)
        return serve(_backend=backend, **options), faults

    return start


def is_served(sock):
    try:
        sock.sendall(b"x")
        return sock.recv(1) == b"x"
    except ConnectionError:
        return False


def serve_until_well(server, tries=20):
    """Clients until one is served; how many were not. Each of them has to hear that."""
    for lost in range(tries):
        if is_served(server.connect()):
            return lost
    raise AssertionError(f"none of {tries} clients was served")


@pytest.mark.parametrize("code", SHORT)
@pytest.mark.parametrize("point", POINTS)
def test_shortage_pauses_and_ends(faulty, point, code):
    server, faults = faulty()
    assert is_served(server.connect())
    server.in_loop(faults.fail, point, code)
    # One or two clients make it post, and complete, again.
    lost = serve_until_well(server) + serve_until_well(server)
    wait_until(lambda: server.heard("error"), "the report")
    events = server.heard("error")
    assert len(events) == 1
    assert events[0].action == "paused" and events[0].exception.winerror == code
    assert server.server.stats().accept_errors == {events[0].exception.errno: 1}
    assert lost <= 1
    # Where the accept had a client already that client was ended, which serve_until_well() saw, and is counted.
    assert server.server.stats().accepts_abandoned == lost == (point in ("accepted", "update"))
    assert server.heard("pause")[0] == {"resources"}
    wait_until(lambda: server.listener.state == "accepting")


@pytest.mark.parametrize("code", GONE)
@pytest.mark.parametrize("point", ["accept", "accepted", "update"])
def test_lost_client_pauses_nothing(faulty, point, code):
    server, faults = faulty()
    server.in_loop(faults.fail, point, code, 0, 3)
    assert serve_until_well(server) + serve_until_well(server) <= 3
    assert not server.heard("error") and not server.heard("pause")
    wait_until(lambda: serve_until_well(server) == 0 and sum(server.server.stats().accept_errors.values()) == 3)
    assert server.server.stats().accepts_abandoned == 0              # they went by themselves


@pytest.mark.parametrize("code", [6, 10009, 10038, 10045])
def test_dead_listener_is_closed(faulty, code):
    server, faults = faulty()
    server.in_loop(faults.fail, "accepted", code)
    sock = server.connect()
    wait_until(lambda: server.listener.state == "closed")
    assert [event.action for event in server.heard("error")] == ["listener closed"]
    assert not is_served(sock)


def test_unknown_code_backs_off(faulty):
    server, faults = faulty()
    server.in_loop(faults.fail, "accepted", 12345)
    assert serve_until_well(server) == 1
    assert [(event.action, event.exception.winerror) for event in server.heard("error")] == [("paused", 12345)]


@pytest.mark.parametrize("point", ["socket", "accept"])
def test_lasting_shortage_makes_no_storm(faulty, point):
    """A naive server posted 54,512 times in 15 s here."""
    server, faults = faulty()
    assert is_served(server.connect())
    server.in_loop(faults.fail, point, 1450, 0, 2**32 - 1)
    waiting = [server.connect(b"w") for _ in range(30)]
    before, turns, started = faults.made(point), server.server.stats().turns, time.monotonic()
    time.sleep(1.5)                                     # what is measured is that nothing happens
    assert faults.made(point) - before < 40, time.monotonic() - started
    assert server.server.stats().turns - turns < 100
    assert len(server.heard("error")) == 1
    server.in_loop(faults.fail, point, 0, 0, 0)
    served = [sock for sock in waiting if receive(sock, 1) == b"w"]
    assert len(served) == len(waiting)


def test_posted_accepts_count_against_the_limit(faulty):
    """Ten may come in; never are more open and posted than that."""
    server, faults = faulty(limits=fastaccept.Limits(max_connections=10))
    seen = []
    for _ in range(10):
        assert is_served(server.connect())
        seen.append(server.in_loop(lambda: faults.posted + faults.held + server.server.active))
    assert max(seen) <= 10
    late = server.connect(b"late")
    wait_until(lambda: server.listener.state == "full")
    assert server.in_loop(lambda: faults.posted) == 0
    assert not is_answered(late, 0.2)
    server.clients[0].close()
    assert receive(late, 4) == b"late"
    assert server.server.active == 10 and server.server.stats().accepts_abandoned == 0


def test_room_for_one_is_open_to_both_listeners(faulty):
    server, _faults = faulty(limits=fastaccept.Limits(max_connections=1))
    other = server.server.listen("127.0.0.1", 0)[0]
    for address in (other.address, server.listener.address) * 3:
        sock = socket.create_connection(address, timeout=20)
        assert is_served(sock)
        assert server.server.active == 1
        sock.close()
    # Both at once: the second one waits, and is not forgotten.
    one = socket.create_connection(other.address, timeout=20)
    two = socket.create_connection(server.listener.address, timeout=20)
    one.sendall(b"1"), two.sendall(b"2")
    wait_until(lambda: is_answered(one) or is_answered(two))
    first, second = (one, two) if is_answered(one) else (two, one)
    assert not is_answered(second, 0.2) and server.server.active == 1
    first.close()
    assert len(receive(second, 1)) == 1
    second.close()


def test_refuse_resets_and_resumes(faulty):
    server, _faults = faulty(limits=fastaccept.Limits(max_connections=1), when_full="refuse")
    assert is_served(server.connect())
    wait_until(lambda: server.server.stats().refused_episodes == 1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=20)
    with socket.socket() as thief, pytest.raises(OSError):       # the port is ours still
        thief.bind(server.address)
    server.clients[0].close()
    wait_until(lambda: server.listener.state == "accepting")
    assert is_served(server.connect())


@pytest.mark.parametrize("shortage", [None, 10024])
def test_reject_tells(faulty, shortage):
    """Also when no socket can be made but the one in reserve."""
    server, faults = faulty(limits=fastaccept.Limits(max_connections=1), when_full="reject", reject_message=b"full, sorry")
    assert is_served(server.connect())
    wait_until(lambda: server.listener.state == "full")
    if shortage:
        server.in_loop(faults.fail, "socket", shortage, 0, 1)
    for _ in range(20):
        assert receive_all(server.connect()) == b"full, sorry"
    wait_until(lambda: server.server.stats().rejected == 20)
    server.clients[0].close()
    wait_until(lambda: server.listener.state == "accepting")
    assert is_served(server.connect())


def test_pause_lets_nobody_hang(faulty):
    """Whoever a posted accept had taken is served or ended; under "refuse" nobody is left believing."""
    server, faults = faulty()
    socks = [server.connect() for _ in range(40)]
    server.server.pause("refuse")
    served = sum(map(is_served, socks))
    assert server.in_loop(lambda: faults.held) == 0
    assert server.server.stats().accepts_abandoned <= len(socks) - served
    server.server.resume()
    assert is_served(server.connect())


def test_client_that_waits_at_an_accept_is_counted_when_it_is_reset(faulty):
    """Two listeners, room for one: who was taken beyond it is held, and then refused."""
    server, faults = faulty(limits=fastaccept.Limits(max_connections=1))
    other = server.server.listen("127.0.0.1", 0)[0]
    wait_until(lambda: server.in_loop(lambda: faults.posted) == 2)

    def connect_to_both():          # in the loop's thread, so that the next wait finds both taken
        return [socket.create_connection(address, timeout=20) for address in (other.address, server.listener.address)]

    socks = server.in_loop(connect_to_both)
    wait_until(lambda: server.server.active == 1 and server.in_loop(lambda: faults.held) == 1)
    assert server.server.stats().accepts_abandoned == 0
    server.server.pause("refuse")
    wait_until(lambda: server.server.stats().accepts_abandoned == 1)
    assert sorted(map(is_served, socks)) == [False, True]
    for sock in socks:
        sock.close()


def test_close_takes_every_posted_accept_back(faulty):
    server, faults = faulty(on_data=echo)
    assert is_served(server.connect())
    wait_until(lambda: faults.posted > 0)
    server.server.close()
    assert faults.posted == 0 and faults.held == 0
