"""Ensures that a server that is out of descriptors waits quietly, says so once, and goes on as soon as it can: with a real
RLIMIT_NOFILE, in a process of its own."""

import json
import socket
import statistics
import subprocess
import sys
import threading
import time

import pytest

from helpers import net

pytestmark = pytest.mark.linux("RLIMIT_NOFILE")

# A server that does what it is told by lines on stdin, each answered by a line.
CHILD = """
import json, os, resource, sys, time
import fastaccept
options = json.loads(sys.argv[1])
events, pauses = [], []
server = fastaccept.Server(
    on_data=lambda conn, data: conn.write(data),
    on_error=lambda event: events.append(str(event)),
    on_pause=lambda listener, reasons: pauses.append(sorted(reasons)),
    limits=fastaccept.Limits(max_connections=None, reserve_fds=options.get("reserve", 0)),
    when_full=options.get("when_full", "queue"),
    reject_message=options.get("message", "").encode(),
)
port = server.listen("127.0.0.1", 0, backlog=512)[0].port
server.start()
held = []
def limit(free):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if free is None else server.stats().descriptors + free, hard))
def hold(n):
    held.extend(os.dup(0) for _ in range(n))
def let_go(n):
    for _ in range(n):
        os.close(held.pop())
def look():
    stats = server.stats()
    return dict(port=port, active=stats.active, events=events, pauses=pauses, calls=stats.accept_calls, cpu=time.process_time(),
                at=time.monotonic(), queued=stats.queued, errors=stats.accept_errors, rejected=stats.rejected,
                refused=stats.refused_episodes, state=server.listeners[0].state, fds=stats.descriptors, limit=stats.descriptor_limit)
names = dict(limit=limit, hold=hold, let_go=let_go, look=look, pause=server.pause, resume=server.resume)
for line in sys.stdin:
    name, *args = json.loads(line)
    print(json.dumps(names[name](*args)), flush=True)
server.close()
"""


class Child:
    def __init__(self, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.address = ("127.0.0.1", self.ask("look")["port"])
        self.socks = []

    def ask(self, *words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def connect(self, n):
        made = [socket.create_connection(self.address, timeout=net.DEADLINE_S) for _ in range(n)]
        for sock in made:
            sock.sendall(b"?")
        self.socks += made
        return made

    def close(self):
        for sock in self.socks:
            sock.close()
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        assert errors == ""


@pytest.fixture
def child():
    made = []

    def make(**options):
        made.append(Child(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def admit(socks, n):
    """The n of them that are answered first; the rest wait."""
    net.wait_until(lambda: sum(net.is_answered(sock) for sock in socks) >= n, f"{n} answers")
    admitted = [sock for sock in socks if net.is_answered(sock)]
    for sock in admitted:
        sock.recv(16)
    return admitted, [sock for sock in socks if sock not in admitted]


def starve(child, admitted=20, clients=40):
    child.ask("limit", admitted)
    return admit(child.connect(clients), admitted)


def test_exhausted_for_two_seconds_it_neither_spins_nor_repeats_itself(child):
    server = child()
    admitted, waiting = starve(server)
    assert (len(admitted), len(waiting)) == (20, 20)
    before = server.ask("look")
    threading.Event().wait(2.0)  # the span that is measured
    after = server.ask("look")
    assert (after["cpu"] - before["cpu"]) / (after["at"] - before["at"]) < 0.02
    assert after["calls"] - before["calls"] <= 10
    assert len(after["events"]) == 1 and "Too many open files" in after["events"][0]
    assert after["queued"] == 20 and after["state"] == "throttled" and after["pauses"][0] == ["resources"]


def test_resume_within_five_milliseconds_of_a_release(child):
    server = child()
    admitted, waiting = starve(server, 30, 60)
    took = []
    for _ in range(30):
        started = time.perf_counter()
        admitted.pop().close()
        net.wait_until(lambda: any(net.is_answered(sock) for sock in waiting), "an answer")
        took.append(time.perf_counter() - started)
        served = next(sock for sock in waiting if net.is_answered(sock))
        waiting.remove(served)
    assert statistics.median(took) < 0.005


def test_descriptors_that_come_from_elsewhere_are_found_by_the_timer(child):
    """Nothing of our own is released."""
    server = child()
    server.ask("hold", 30)
    _, waiting = starve(server, 5, 10)
    server.ask("let_go", 30)
    started = time.monotonic()
    admit(waiting, 5)
    assert time.monotonic() - started < 2.0  # one delay is 1 s at most


def test_with_no_connection_open_at_all(child):
    server = child()
    server.ask("limit", 0)
    (sock,) = server.connect(1)
    net.wait_until(lambda: server.ask("look")["state"] == "throttled", "a shortage")
    server.ask("limit", None)
    admit([sock], 1)


def test_nothing_resumes_while_the_user_has_paused(child):
    server = child()
    admitted, _ = starve(server, 10, 15)
    server.ask("pause", "queue")
    for sock in admitted:
        sock.close()
    net.wait_until(lambda: server.ask("look")["active"] == 0, "all released")
    (late,) = server.connect(1)
    server.ask("limit", None)
    assert not net.is_answered(late, 1.2)  # longer than the longest retry delay
    assert server.ask("look")["state"] == "paused"
    server.ask("resume")
    admit([late], 1)


def test_refuse_when_starved_keeps_the_port(child):
    server = child(when_full="refuse")
    server.ask("limit", 1)
    admit(server.connect(1), 1)
    for _ in range(3):  # refused; or, if a retry had just begun to listen again, connected and reset
        with pytest.raises(ConnectionError), socket.create_connection(server.address, timeout=net.DEADLINE_S) as sock:
            while sock.recv(1):
                pass
            raise AssertionError("told nothing but the end")
    assert server.ask("look")["refused"] >= 1
    thief = socket.socket()
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with pytest.raises(OSError):
        thief.bind(server.address)
        thief.listen()
    thief.close()
    server.ask("limit", None)
    net.wait_until(lambda: server.ask("look")["state"] == "accepting", "listening again")
    admit(server.connect(1), 1)


@pytest.mark.parametrize("message", ["busy\n", ""])
def test_reject_with_no_descriptor_left(child, message):
    server = child(when_full="reject", message=message)
    server.ask("limit", 3)
    admit(server.connect(3), 3)
    for _ in range(5):
        with socket.create_connection(server.address, timeout=net.DEADLINE_S) as sock:
            sock.sendall(b"what the server never reads")
            assert net.receive_all(sock) == message.encode()
    look = server.ask("look")
    assert look["rejected"] >= 5 and len(look["events"]) == 1


def test_reserved_descriptors_are_left_free(child):
    server = child(reserve=12)
    server.ask("limit", 20)
    admitted, waiting = admit(server.connect(30), 8)
    look = server.ask("look")
    assert look["limit"] - look["fds"] == 12 and len(admitted) == 8
    server.ask("hold", 12)
    server.ask("let_go", 12)
    admitted.pop().close()
    admit(waiting, 1)
    after = server.ask("look")
    assert (after["active"], after["fds"]) == (8, look["fds"])
