"""fastaccept demo: the main job in one command. A server in one process, clients in others; it is filled, overflowed, starved of
descriptors and pumped, and each promise of the README is measured and judged."""

from __future__ import annotations

import argparse
import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastaccept.cli import options
from fastaccept.cli.children import end_child, start_child
from fastaccept.cli.terminal import format_bytes, format_count, format_duration, table

FILL_MAX = 8_000 if sys.platform == "win32" else 19_000  # Windows gives its clients 16,384 ports by default
OWN_DESCRIPTORS = 200
QUEUED = 50  # clients beyond the limit
RELEASES = 20  # resumes that are timed
LOOK_S = 1.0  # how long a state is watched for its CPU
ANSWER_S = 5.0  # nobody waits longer for what was promised
BUSY = b"busy, come back later\n"

# What the promises allow. The resume is timed in another process, so a tick of that one's scheduling is in it: Windows' is longer.
CPU_SHARE_MAX = 0.02
RESUME_MAX_S = 0.015 if sys.platform == "win32" else 0.005
ACCEPT_CALLS_MAX = 10
IDLE_BYTES_MAX = 400
IDLE_COUNT_MIN = 1_000  # memory is had in pieces for 1,024 connections, which fewer can't share


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="fill, starve and pump a server, and see which promises it keeps",
        description="Fill, starve and pump a server, and see which promises it keeps. Under a minute; exit code 1 if one is broken.",
    )
    parser.add_argument("-n", "--connections", type=options.count, help=f"connections to fill it with; default: up to {FILL_MAX:,}")
    parser.add_argument("--seconds", type=options.seconds, default=3.0, help="seconds that data is pumped")


class Judge:
    """Collects what was promised, what was seen, and whether that keeps it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def __call__(self, promise: str, what: str, seen: str, kept: bool) -> None:
        self.rows.append((promise, what, seen, "kept" if kept else "BROKEN"))
        print(f"  {what}: {seen}{'' if kept else '   <- BROKEN'}", flush=True)

    @property
    def broken(self) -> int:
        return sum(row[3] == "BROKEN" for row in self.rows)


class ServerProcess:
    """The server's process. Each method asks one thing and returns its answer."""

    def __init__(self) -> None:
        self.process = start_child("fastaccept.cli.demo_server")

    def ask(self, name: str, **given: Any) -> dict[str, Any]:
        self.process.stdin.write(json.dumps([name, given]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"the server's process ended with exit code {self.process.wait()}")
        return json.loads(line)

    def open(self, max_connections: int | None, when_full: str = "queue") -> tuple[str, int]:
        answer = self.ask("open", max_connections=max_connections, when_full=when_full, reject_message=BUSY.decode())
        return "127.0.0.1", answer["port"]

    def look(self) -> dict[str, Any]:
        return self.ask("look")

    def watch(self) -> tuple[dict[str, Any], float, int]:
        """Look for LOOK_S at a server that should be at rest: (figures, share of a CPU, accept calls)."""
        before = self.look()
        time.sleep(LOOK_S)
        after = self.look()
        share = (after["cpu_s"] - before["cpu_s"]) / (after["at_s"] - before["at_s"])
        return after, share, after["accept_calls"] - before["accept_calls"]

    def until(self, condition: Any) -> dict[str, Any]:
        """Ask until a condition holds of the figures, or ANSWER_S have gone."""
        deadline = time.monotonic() + ANSWER_S
        figures = self.look()
        while not condition(figures) and time.monotonic() < deadline:
            time.sleep(0.005)
            figures = self.look()
        return figures


def run(args: argparse.Namespace) -> int:
    from fastaccept.descriptors import raise_descriptor_limit

    started = time.monotonic()
    limit = raise_descriptor_limit() or sys.maxsize
    fill = min(args.connections or FILL_MAX, limit - OWN_DESCRIPTORS)
    judge = Judge()
    server = ServerProcess()
    try:
        overflow(server, judge, fill)
        resume(server, judge)
        policies(server, judge)
        if sys.platform == "win32":
            print("\n3. Starving of descriptors: left out, Windows has no limit of them for a process")
        else:
            starve(server, judge)
        pump(server, judge, args.seconds)
    finally:
        end_child(server.process)
    print()
    print(table(["promise", "what", "seen", ""], judge.rows))
    print(f"\n{judge.broken} of {len(judge.rows)} broken" if judge.broken else f"\nall {len(judge.rows)} kept", end="")
    print(f", in {format_duration(time.monotonic() - started)}")
    return 1 if judge.broken else 0


# ---- clients


@contextmanager
def clients(address: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    """So many plain sockets, connected."""
    socks: list[socket.socket] = []
    try:
        for _ in range(count):
            socks.append(socket.create_connection(address, timeout=ANSWER_S))
        yield socks
    finally:
        for sock in socks:
            sock.close()


def ask_all(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.sendall(b"?")


def answered(socks: list[socket.socket], wait_s: float, enough: int | None = None) -> list[socket.socket]:
    """Those that can be read within a time, until there are enough (default: all). poll() and not select(): that ends at 1,024."""
    enough = len(socks) if enough is None else enough
    deadline = time.monotonic() + wait_s
    ready: list[socket.socket] = []
    while True:
        waiting = [sock for sock in socks if sock not in ready]
        if len(ready) >= enough or not waiting:
            return ready
        left = max(0.0, deadline - time.monotonic())
        if hasattr(select, "poll"):
            poll = select.poll()
            by_number = {sock.fileno(): sock for sock in waiting}
            for number in by_number:
                poll.register(number, select.POLLIN)
            ready += [by_number[number] for number, _ in poll.poll(left * 1000)]
        else:
            ready += select.select(waiting, [], [], left)[0]
        if time.monotonic() >= deadline:
            return ready


def release_and_wait(admitted: list[socket.socket], waiting: list[socket.socket]) -> float:
    """Close one admitted client; seconds until one that waits has its answer."""
    started = time.perf_counter()
    admitted.pop().close()
    served = answered(waiting, ANSWER_S, 1)
    took = time.perf_counter() - started
    for sock in served:
        waiting.remove(sock)
        sock.recv(16)
        admitted.insert(0, sock)
    return took if served else ANSWER_S


# ---- the steps


def overflow(server: ServerProcess, judge: Judge, fill: int) -> None:
    print(f"1. {format_count(fill)} connections to one process, which is its limit, and {QUEUED} beyond it", flush=True)
    from fastaccept.cli.storm import storm

    address = server.open(fill)
    before = server.look()
    seen: dict[str, Any] = {}
    beyond: list[socket.socket] = []

    def while_held(report: dict[str, Any]) -> None:
        seen["held"] = server.until(lambda figures: figures["active"] == fill)
        beyond.extend(socket.create_connection(address, timeout=ANSWER_S) for _ in range(QUEUED))
        ask_all(beyond)
        figures, share, calls = server.watch()
        judge("never over the wall", "open at a limit of " + format_count(fill), format_count(figures["active"]), figures["active"] == fill)
        if figures["queued"] is not None:  # Windows does not tell
            judge("never silent", "clients known to wait", str(figures["queued"]), figures["queued"] == QUEUED)
        judge("never spinning", "CPU while full", f"{share:.1%}, {calls} accept calls", share <= CPU_SHARE_MAX and calls == 0)
        judge("no phantoms", "clients beyond the limit that were answered", str(len(answered(beyond, 0.05))), not answered(beyond, 0))

    try:
        report = storm(address, fill, keep_going=True, label="  filling", on_opened=while_held)
        judge("never over the wall", "held and echoed to", format_count(report["made"]), report["made"] == fill)
        per_connection = (seen["held"]["private_bytes"] - before["private_bytes"]) / fill
        if before["private_bytes"] and fill >= IDLE_COUNT_MIN:
            judge("idle is free", "user-space bytes a connection", f"{per_connection:.0f}", per_connection <= IDLE_BYTES_MAX)
        served = len(answered(beyond, ANSWER_S))
        judge("never stuck", "served after the others left", f"{served} of {QUEUED}", served == QUEUED)
    finally:
        for sock in beyond:
            sock.close()
    figures = server.until(lambda figures: figures["active"] == 0)
    judge("nothing leaked", "open after all have left", str(figures["active"]), figures["active"] == 0)


def resume(server: ServerProcess, judge: Judge) -> None:
    print(f"\n2. One leaves, one may come in: {RELEASES} times; then a pause by the user, and the policies", flush=True)
    address = server.open(RELEASES)
    with clients(address, RELEASES) as admitted:
        ask_all(admitted)
        for sock in answered(admitted, ANSWER_S):
            sock.recv(16)
        with clients(address, RELEASES) as waiting:
            ask_all(waiting)
            times = [release_and_wait(admitted, waiting) for _ in range(RELEASES)]
            took = statistics.median(times)
            judge("never stuck", "release to the next one's answer, median", format_duration(took), took <= RESUME_MAX_S)
            server.ask("pause")
            admitted[0].sendall(b"?")
            alive = bool(answered(admitted[:1], ANSWER_S))
            admitted.pop().close()
            time.sleep(0.05)
            is_refused = connect_result(address) == "refused"
            judge("user's pause holds", "new client while paused, others released", "refused" if is_refused else "let in", is_refused)
            judge("user's pause holds", "those inside are served on", "yes" if alive else "no", alive)
            server.ask("resume")
            came = connect_result(address)
            judge("never stuck", "new client after resume()", came, came == "connected")


def connect_result(address: tuple[str, int]) -> str:
    try:
        socket.create_connection(address, timeout=ANSWER_S).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return str(error)
    return "connected"


def policies(server: ServerProcess, judge: Judge) -> None:
    address = server.open(1, "refuse")
    with clients(address, 1):
        server.until(lambda figures: figures["state"] == "full" and figures["refused_episodes"])
        result = connect_result(address)
        judge("no phantoms", 'when_full="refuse"', result, result == "refused")
    server.until(lambda figures: figures["state"] == "accepting")
    result = connect_result(address)
    judge("never stuck", "the port after refusing", result, result == "connected")
    address = server.open(1, "reject")
    with clients(address, 1):
        server.until(lambda figures: figures["state"] == "full")
        judge("no phantoms", 'when_full="reject"', *rejected(address))


def rejected(address: tuple[str, int]) -> tuple[str, bool]:
    with socket.create_connection(address, timeout=ANSWER_S) as sock:
        text = b"".join(iter(lambda: sock.recv(100), b""))
    return repr(text.decode()), text == BUSY


def starve(server: ServerProcess, judge: Judge) -> None:
    print("\n3. Starved: 50 descriptors left, 100 clients come", flush=True)
    address = server.open(None)
    server.ask("descriptors", free=50)
    with clients(address, 100) as socks:
        ask_all(socks)
        admitted = answered(socks, ANSWER_S, 50)
        waiting = [sock for sock in socks if sock not in admitted]
        for sock in admitted:
            sock.recv(16)
        figures, share, calls = server.watch()
        judge("never stuck", "served, and waiting", f"{len(admitted)} and {len(waiting)}", len(admitted) == 50)
        is_quiet = share <= CPU_SHARE_MAX and calls <= ACCEPT_CALLS_MAX
        judge("never spinning", "CPU while starved", f"{share:.1%}, {calls} accept calls", is_quiet)
        failures = sum(figures["accept_errors"].values())
        judge("never silent", "on_error calls", f"{figures['events']} for {failures} failures", figures["events"] == 1 and failures > 1)
        took = statistics.median(release_and_wait(admitted, waiting) for _ in range(RELEASES))
        judge("never stuck", "release to the next one's answer, median", format_duration(took), took <= RESUME_MAX_S)
        started = time.monotonic()
        server.ask("descriptors", free=None)
        served = len(answered(waiting, ANSWER_S))
        took = time.monotonic() - started
        judge("never stuck", "served once descriptors came from elsewhere", f"{served} of {len(waiting)} in {format_duration(took)}",
              served == len(waiting) and took <= 1.5)  # fmt: skip
    address = server.open(None, "reject")
    server.ask("descriptors", free=0)
    judge("no phantoms", "rejected with no descriptor left", *rejected(address))
    server.ask("descriptors", free=None)


def pump(server: ServerProcess, judge: Judge, seconds: float) -> None:
    print("\n4. Data: 200 connections, 4 KiB messages, every byte checked", flush=True)
    from fastaccept.cli.storm import storm

    address = server.open(None)
    order = {"size": 4096, "rate": None, "seconds": seconds}
    report = storm(address, 200, keep_going=True, pump=order, label="  connecting")
    figures = report["pump"]
    print(f"  {format_count(figures['messages_per_s'])} messages/s, {format_bytes(figures['bytes_per_s'])}/s, p50 "
          f"{format_duration(figures['p50_us'] / 1e6)}, p99 {format_duration(figures['p99_us'] / 1e6)}")  # fmt: skip
    judge("nothing lost", "messages that came back wrong", f"{figures['wrong']} of {format_count(figures['messages'])}",
          figures["wrong"] == 0 and figures["messages"] > 0 and not report["lost"])  # fmt: skip
