"""Ensures that a server whose system runs out of sockets waits quietly, says so once, and then serves everybody: for real, by the
descriptor limit of the Wine server. An AcceptEx fails then when it is posted, or completes with ERROR_TOO_MANY_OPEN_FILES, and would
again at once, tens of thousands of times."""

import time

import pytest

from helpers import net
from winlab.conftest import WindowsServer, fate, readable

DESCRIPTORS = 800  # of the Wine server, which has about 200 of them at rest
CLIENTS = 1000
EPISODE_QUIET_S = 2.0  # without a failure for so long, the next one is a new episode


@pytest.fixture(scope="module")
def windows():
    server = WindowsServer(DESCRIPTORS)
    yield server
    server.end()


@pytest.mark.timeout(180)
def test_a_thousand_clients_where_six_hundred_fit(windows, clients, descriptors, capsys):
    windows.open()
    inside, waiting = starve(windows, clients)
    before, cpu_s, started = windows.look(), windows.cpu_s(), time.monotonic()
    time.sleep(3.0)  # the span that is measured
    after, share = windows.look(), (windows.cpu_s() - cpu_s) / (time.monotonic() - started)
    calls = after["accept_calls"] - before["accept_calls"]
    with capsys.disabled():
        print(f"\n{CLIENTS:,} clients, {DESCRIPTORS} descriptors: {len(inside)} served, {len(waiting)} wait, {after['accept_calls']:,} "
              f"accept calls, {calls} of them in 3 s of waiting, {share:.1%} of a CPU; {after['reports'][0]}")  # fmt: skip
    assert after["accept_calls"] < 5_000 and calls < 100 and share < 0.05
    assert after["state"] == "throttled" and len(after["reports"]) == 1
    for sock in inside:
        sock.sendall(b"!")
    assert all(net.receive(sock, 1) == b"!" for sock in inside)

    releases = let_all_in(inside, waiting)
    with capsys.disabled():
        print(f"all {CLIENTS:,} served after {releases} releases, {windows.look('accept_calls'):,} accept calls")
    assert len(windows.look("reports")) == 1  # the shortage went on all the while
    for sock in inside:
        sock.close()
    windows.until("active", 0)
    windows.until("state", "accepting")
    time.sleep(EPISODE_QUIET_S)
    starve(windows, clients)
    assert len(windows.look("reports")) == 2


def starve(windows, clients):
    """More clients than fit: (those that are served, those that wait). Nobody is refused or reset."""
    socks = clients(CLIENTS)
    windows.until("state", "throttled")
    inside = readable(socks, CLIENTS, 1.0)
    assert {fate(sock) for sock in inside} == {"?"}
    assert 300 < len(inside) < 800
    return inside, [sock for sock in socks if sock not in set(inside)]


def let_all_in(inside, waiting):
    """Close one that is served until nobody waits; returns how many that took. Each of them lets somebody in."""
    releases = 0
    while waiting:
        inside.pop().close()
        releases += 1
        served = readable(waiting, 1)
        assert served and {fate(sock) for sock in served} == {"?"}, f"nobody came in for release {releases}; {len(waiting)} wait"
        inside += served
        waiting = [sock for sock in waiting if sock not in set(served)]
    return releases
