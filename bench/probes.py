"""The scenarios that need no load: memory per connection, exhaustion of descriptors, start-up time.

The clients here are a few hundred, or idle, so Python is fast enough for them.
"""

from __future__ import annotations

import errno
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

from harness import Bench, Peer, RunError, Server

CONNECT_BATCH = 1000  # below any backlog: the server catches up before the next batch
CATCH_UP_S = 20.0
CLOSE_S = 5.0  # a server that has not closed by then keeps the descriptors, and the table says so
MESSAGE = b"m" * 64
WORTH_GIVING_BACK = 256 * 1024  # bytes; of less than that, a few pages more or less decide the share

EXHAUSTION_BACKLOG = 512  # all surplus clients fit, so each of them is connected
SETTLE_S = 1.0
WATCH_S = 2.0
PING_INTERVAL_S = 0.01
RESUME_TIMEOUT_S = 4.0
CLOSED_LATER = 20
FATES = ("served", "queued", "closed", "reset", "refused", "told", "unreachable")


def _reaches(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _private_bytes(pid: int) -> int:
    """User-space memory that this process alone has: what would be free if it ended."""
    total_kib = 0
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith(("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")):
                total_kib += int(line.split()[1])
    return total_kib * 1024


def _connect(server: Server, source: int) -> socket.socket:
    sock = socket.socket()
    sock.bind((f"127.0.0.{2 + source % 32}", 0))
    sock.connect(("127.0.0.1", server.port))
    return sock


def _echo_once(sock: socket.socket) -> None:
    sock.settimeout(CATCH_UP_S)
    sock.sendall(MESSAGE)
    received = 0
    while received < len(MESSAGE):
        got = len(sock.recv(len(MESSAGE)))
        if got == 0:
            raise RunError("the server closed a connection that it should serve")
        received += got


def _hold(server: Server, count: int, fresh: int) -> list[socket.socket]:
    """Open connections and wait until the server has accepted them; `fresh`: its descriptors without any."""
    held: list[socket.socket] = []
    while len(held) < count:
        held += [_connect(server, i) for i in range(min(CONNECT_BATCH, count - len(held)))]
        goal = fresh + len(held)
        if not _reaches(lambda goal=goal: server.descriptors_open() >= goal, CATCH_UP_S):
            raise RunError(f"{goal - server.descriptors_open()} connections were not accepted")
    return held


def measure_memory(peer: Peer, bench: Bench, count: int, server_options: tuple[str, ...] = ()) -> dict:
    """Return user-space bytes per idle connection in each stage of their life.

    One hundred connections come, echo and go first: what the first client costs once is not counted.
    """
    with Server(peer, bench, server_options) as server:
        fresh = server.descriptors_open()
        for sock in _hold(server, 100, fresh):
            _echo_once(sock)
            sock.close()
        _reaches(lambda: server.descriptors_open() <= fresh, CLOSE_S)
        base = _private_bytes(server.pid)
        held = _hold(server, count, fresh)
        accepted = _private_bytes(server.pid)
        for sock in held:
            _echo_once(sock)
        echoed = _private_bytes(server.pid)
        for sock in held:
            sock.close()
        _reaches(lambda: server.descriptors_open() <= fresh, CLOSE_S)
        time.sleep(0.2)  # what a server does after its last close
        closed = _private_bytes(server.pid)
        kept = server.descriptors_open() - fresh
    taken = echoed - base
    return {
        "count": count,
        "base_mib": base / 2**20,
        "accepted_bytes": (accepted - base) / count,
        "echoed_bytes": (echoed - base) / count,
        "closed_bytes": (closed - base) / count,
        "descriptors_kept": max(0, kept),
        "given_back_percent": 100 * (echoed - closed) / taken if taken >= WORTH_GIVING_BACK else None,
    }


class Crowd:
    """Clients of an exhausted server: each connects, writes one byte, and is watched for what it gets."""

    def __init__(self, server: Server, count: int) -> None:
        self.fate: dict[socket.socket, str] = {}
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", server.port))
            self.fate[sock] = "unreachable"
            self._selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _on_writable(self, sock: socket.socket) -> None:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if error:
                raise OSError(error, "connect")
            sock.send(b"?")
        except OSError as exc:
            self._lose(sock, exc)
            return
        self.fate[sock] = "queued"
        self._selector.modify(sock, selectors.EVENT_READ)

    def _on_readable(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(100)
        except OSError as exc:
            self._lose(sock, exc)
            return
        if data == b"?":
            self.fate[sock] = "served"
        elif data:
            self.fate[sock] = "told"
        else:
            self.fate[sock] = "told" if self.fate[sock] == "told" else "closed"
            self._selector.unregister(sock)

    def _lose(self, sock: socket.socket, exc: OSError) -> None:
        self.fate[sock] = "refused" if exc.errno == errno.ECONNREFUSED else "reset"
        self._selector.unregister(sock)

    def count(self, fate: str) -> int:
        return sum(1 for value in self.fate.values() if value == fate)

    def watch(self, seconds: float, until_served: int | None = None) -> float | None:
        """Follow everybody for a time, or until so many are served; return when that was, in seconds."""
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < seconds:
            if until_served is not None and self.count("served") >= until_served:
                return passed
            for key, events in self._selector.select(min(0.05, seconds - passed)):
                if events & selectors.EVENT_WRITE:
                    self._on_writable(key.fileobj)
                elif events & selectors.EVENT_READ:
                    self._on_readable(key.fileobj)
        return None

    def take(self, number: int) -> list[socket.socket]:
        """Remove that many served clients from the crowd, for other uses."""
        taken = [sock for sock, fate in self.fate.items() if fate == "served"][:number]
        for sock in taken:
            self._selector.unregister(sock)
            self.fate[sock] = "taken"
        return taken

    def close(self) -> None:
        self._selector.close()
        for sock in self.fate:
            sock.close()


def _ping(sock: socket.socket, seconds: float) -> list[float]:
    """Round trips of an admitted client, in milliseconds."""
    sock.settimeout(RESUME_TIMEOUT_S)
    trips = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        sock.sendall(b"!")
        if not sock.recv(1):
            raise RunError("an admitted client was dropped")
        trips.append((time.monotonic() - begun) * 1e3)
        time.sleep(PING_INTERVAL_S)
    return trips


def _resume_ms(crowd: Crowd, closing: list[socket.socket]) -> float | None:
    """Close these clients; return how long until as many of the queue are served, None when they were not."""
    waiting = min(len(closing), crowd.count("queued"))
    if waiting == 0:
        return None
    goal = crowd.count("served") + waiting
    for sock in closing:
        sock.close()
    seconds = crowd.watch(RESUME_TIMEOUT_S, until_served=goal)
    return None if seconds is None else seconds * 1e3


def measure_exhaustion(
    peer: Peer, bench: Bench, clients: int, descriptors: int, options: tuple[str, ...]
) -> dict:
    """Return what a server does that has fewer descriptors than clients, and what its clients see."""
    with Server(peer, bench, options, EXHAUSTION_BACKLOG, descriptors) as server:
        crowd = Crowd(server, clients)
        crowd.watch(SETTLE_S)
        fates = Counter(crowd.fate.values())
        admitted = crowd.take(1 + 1 + CLOSED_LATER)
        if not admitted or not server.is_alive():
            raise RunError(f"nobody was served: {dict(fates)}, {server.last_words()}")
        cpu_ns, log_bytes, begun = server.cpu_ns(), server.log_bytes(), time.monotonic()
        trips = _ping(admitted[0], WATCH_S)
        seconds = time.monotonic() - begun
        result = {
            "cpu_percent": (server.cpu_ns() - cpu_ns) / 1e7 / seconds,
            "log_bytes_per_s": (server.log_bytes() - log_bytes) / seconds,
            "rtt_p50_ms": statistics.median(trips),
            "rtt_max_ms": max(trips),
            **{fate: fates[fate] for fate in FATES},
        }
        crowd.watch(0.1)  # what came during the pings
        had_queue = crowd.count("queued") > 0
        result["resume_1_ms"] = _resume_ms(crowd, admitted[1:2])
        result["resume_20_ms"] = _resume_ms(crowd, admitted[2:])
        result["is_stuck"] = had_queue and result["resume_1_ms"] is None
        crowd.close()
    return result


def measure_startup(peer: Peer, bench: Bench, times: int) -> dict:
    """Return how long `import MODULE` takes beside `python -c pass`, in turns, each in a new process."""
    walls: dict[str, list[float]] = {"pass": [], f"import {peer.module}": []}
    for _ in range(times):
        for code, taken in walls.items():
            begun = time.perf_counter()
            # No timeout here: waiting with one polls, every 50 ms in the end.
            subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)
            taken.append((time.perf_counter() - begun) * 1e3)
    bare, full = (statistics.median(taken) for taken in walls.values())
    return {"pass_ms": bare, "import_ms": full - bare, "start_ms": full}
