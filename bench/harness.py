"""Building, pinning, starting, stopping: one server and one load generator at a time, each on a core."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
BACKLOG = 65535  # cut by the kernel to net.core.somaxconn
START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
# Below the ephemeral range: a client's own port can never be taken for the server's.
SERVER_PORTS = range(20_000, 32_000)


class RunError(Exception):
    """One run could not be measured; the others go on."""


@dataclass(frozen=True)
class Peer:
    """A server that is measured.

    `module` is what it needs (and what start-up imports), `distribution` its name in the package index. It takes part unless peers are
    named, if it is of the default set or the scenario is `at_home`.
    """

    name: str
    script: str
    module: str | None = None
    distribution: str | None = None
    options: tuple[str, ...] = ()
    is_default: bool = True
    at_home: str = ""

    def command(self, port: int, backlog: int) -> list[str]:
        if self.module is None:
            return [str(BUILD / self.script), str(port), str(backlog), *self.options]
        script = str(HERE / "servers" / self.script)
        return [sys.executable, script, str(port), "--backlog", str(backlog), *self.options]

    def is_available(self) -> bool:
        return self.module is None or importlib.util.find_spec(self.module.partition(".")[0]) is not None


PEERS = (
    Peer("c", "echo_epoll"),
    Peer("fastaccept", "fastaccept_echo.py", "fastaccept", "fastaccept"),
    Peer("uvloop", "uvloop_protocol.py", "uvloop", "uvloop"),
    Peer("rloop", "rloop_protocol.py", "rloop", "rloop"),
    Peer("asyncio", "asyncio_protocol.py", "asyncio"),
    Peer("gevent", "gevent_server.py", "gevent.server", "gevent"),
    Peer("twisted", "twisted_server.py", "twisted.internet.reactor", "Twisted"),
    Peer("trio", "trio_server.py", "trio", "trio"),
    Peer("fastaccept-spin", "fastaccept_echo.py", "fastaccept", None, ("--spin-us", "50"), False, "pingpong"),
    Peer("fastaccept-sleep", "fastaccept_echo.py", "fastaccept", None, ("--spin-us", "0"), False, "pingpong"),
    # The floor of churn: the calls of fastaccept without Python.
    Peer("c-read-first", "echo_epoll", options=("--read-first",), is_default=False, at_home="churn"),
    # Not measured unless named: the second flavours, by which the first were found to be better.
    Peer("asyncio-buffered", "asyncio_protocol.py", "asyncio", None, ("--flavour", "buffered"), False),
    Peer("uvloop-buffered", "uvloop_protocol.py", "uvloop", None, ("--flavour", "buffered"), False),
    Peer("rloop-buffered", "rloop_protocol.py", "rloop", None, ("--flavour", "buffered"), False),
)


@dataclass(frozen=True)
class Bench:
    """What holds for all runs of one command."""

    rounds: int
    seconds: float
    warmup_s: float
    server_core: int
    load_core: int
    rate: float = 0.0
    is_quick: bool = False


def find_compiler() -> str:
    return os.environ.get("CC") or shutil.which("cc") or "gcc"


def build() -> None:
    """Compile both C programs into the build folder."""
    BUILD.mkdir(exist_ok=True)
    programs = {"echo_epoll": [HERE / "c" / "echo_epoll.c"], "load": sorted((HERE / "c").glob("load*.c"))}
    for name, sources in programs.items():
        command = [find_compiler(), "-O2", "-Wall", "-Wextra", "-o", str(BUILD / name), *map(str, sources)]
        subprocess.run(command, check=True)


def cpu_clock(pid: int) -> int:
    """Return the clock that counts the CPU time of another process in nanoseconds (MAKE_PROCESS_CPUCLOCK)."""
    return (~pid << 3) | 2


def _pick_port() -> int:
    for port in random.sample(SERVER_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RunError("no free port")


def _prepare_child(core: int, descriptors: int | None) -> None:
    """Runs in the child, before exec."""
    os.sched_setaffinity(0, {core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = hard if descriptors is None else descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


@dataclass
class Server:
    """A running server; as a context manager it is ended at the end.

    Args:
        descriptors: RLIMIT_NOFILE, soft and hard; None = what the machine allows.
    """

    peer: Peer
    bench: Bench
    options: Sequence[str] = ()
    backlog: int = BACKLOG
    descriptors: int | None = None
    port: int = 0
    pid: int = 0
    _process: subprocess.Popen = field(init=False, repr=False)

    def __enter__(self) -> Server:
        self._log = tempfile.TemporaryFile()  # closed in __exit__
        self._process = subprocess.Popen(
            [*self.peer.command(_pick_port(), self.backlog), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            preexec_fn=lambda: _prepare_child(self.bench.server_core, self.descriptors),
        )
        self.pid = self._process.pid
        try:
            self._await_ready()
            self._greet()
        except (RunError, OSError):
            self.__exit__()
            raise
        return self

    def _await_ready(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(START_TIMEOUT_S) else b""
        if not line.startswith(b"listening "):
            raise RunError(f"{self.peer.name} did not start: {self.last_words()}")
        self.port = int(line.split()[1])

    def _greet(self) -> None:
        """Let one client come, echo and go.

        No server that lives is as on its first message. The one that matters most: a loop that reads into a
        fresh 256 KiB object each time maps and unmaps memory per message, until the first such object is
        freed unshrunk, which is at the first end of file; then malloc keeps it, and the same echo costs a
        third.
        """
        with socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT_S) as client:
            client.sendall(b"hello")
            if client.recv(5) != b"hello":
                raise RunError(f"{self.peer.name} does not echo")
        time.sleep(0.05)

    def __exit__(self, *exc_info: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def cpu_ns(self) -> int:
        """CPU time of all its threads."""
        return time.clock_gettime_ns(cpu_clock(self.pid))

    def log_bytes(self) -> int:
        return os.fstat(self._log.fileno()).st_size

    def last_words(self) -> str:
        """The last line on stderr, for an error message."""
        size = self.log_bytes()
        lines = os.pread(self._log.fileno(), 4096, max(0, size - 4096)).decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")[:200]

    def descriptors_open(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def listen_overflows() -> int:
    """Connections that any listener's full queue has dropped since boot."""
    with open("/proc/net/netstat") as file:
        names, values = (line.split() for line in file if line.startswith("TcpExt:"))
    return int(values[names.index("ListenOverflows")])


def run_load(server: Server, scenario: str, options: dict[str, float | bool]) -> dict:
    """Run the load generator against the server and return its JSON, with `listen_overflows` added."""
    bench = server.bench
    command = [str(BUILD / "load"), scenario, str(server.port), "--server-pid", str(server.pid)]
    for name, value in {"seconds": bench.seconds, "warmup": bench.warmup_s, **options}.items():
        if value is True:
            command.append(f"--{name}")
        elif value is not False:
            command += [f"--{name}", str(value)]
    overflows = listen_overflows()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=bench.seconds + bench.warmup_s + 150,
        check=False,
        preexec_fn=lambda: _prepare_child(bench.load_core, None),
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        end = "" if server.is_alive() else f"; the server ended: {server.last_words()}"
        raise RunError(f"load: {words[0]}{end}")
    return {**json.loads(done.stdout), "listen_overflows": listen_overflows() - overflows}
