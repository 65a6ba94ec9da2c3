"""What is measured: the scenarios, their cells, and which figures are shown.

A cell is one combination of options. A scenario's figures are the same in all of its cells, so they make one
table.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, field

from harness import Bench, Peer, Server, run_load
from probes import FATES, measure_exhaustion, measure_memory, measure_startup

SPARE_DESCRIPTORS = 100  # beside the connections, in the server and in the load


@dataclass(frozen=True)
class Metric:
    """A figure of a run; with `ratio` also shown against the C server of the same round, `plot`: drawn."""

    key: str
    label: str
    digits: int = 1
    ratio: bool = False
    plot: bool = False
    log: bool = False


@dataclass(frozen=True)
class Cell:
    name: str
    options: dict = field(default_factory=dict)  # of the load generator, or of the probe
    server_options: tuple[str, ...] = ()
    peers: tuple[str, ...] | None = None  # None: all
    is_quick: bool = False  # part of --quick
    connections: int = 0  # descriptors needed on either side


Measure = Callable[[Peer, Cell, Bench], dict]


@dataclass(frozen=True)
class Scenario:
    """`baseline`: the cell that the same peer's other cells are paired with, in the same round."""

    name: str
    title: str
    about: str
    measure: Measure
    cells: tuple[Cell, ...]
    metrics: tuple[Metric, ...]
    peers: tuple[str, ...] | None = None
    needs_module: bool = False
    baseline: str | None = None
    pair: Callable[[dict, dict], dict] | None = None  # (run, baseline run) -> more figures


def cells_of(scenario: Scenario, bench: Bench) -> list[Cell]:
    """The cells that this command measures on this machine."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_DESCRIPTORS
    fitting = [cell for cell in scenario.cells if cell.connections <= room]
    return [cell for cell in fitting if cell.is_quick or not bench.is_quick]


def allows(scenario: Scenario, cell: Cell, peer: Peer) -> bool:
    for names in (scenario.peers, cell.peers):
        if names is not None and peer.name not in names:
            return False
    return not (scenario.needs_module and peer.module is None)


def _load(scenario: str) -> Measure:
    def measure(peer: Peer, cell: Cell, bench: Bench) -> dict:
        options = dict(cell.options)
        if bench.rate and scenario == "echo":
            options["rate"] = bench.rate
        with Server(peer, bench, cell.server_options) as server:
            return run_load(server, scenario, options)

    return measure


def _memory(peer: Peer, cell: Cell, bench: Bench) -> dict:
    return measure_memory(peer, bench, cell.connections, cell.server_options)


def _exhaustion(peer: Peer, cell: Cell, bench: Bench) -> dict:
    return measure_exhaustion(peer, bench, **cell.options, options=cell.server_options)


def _startup(peer: Peer, cell: Cell, bench: Bench) -> dict:
    return measure_startup(peer, bench, cell.options["times"])


def _bytes(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


def _echo_cell(connections: int, size: int, **more: object) -> Cell:
    options = {"connections": connections, "size": size, **more}
    suffix = f", {more['depth']} in flight" if "depth" in more else ""
    is_quick = connections in (1, 50) and size in (64, 16 * 1024)
    return Cell(
        f"{connections} x {_bytes(size)}{suffix}", options, is_quick=is_quick, connections=connections
    )


def _idle_cell(idle: int) -> Cell:
    options = {"connections": 50, "size": 64, "idle": idle}
    return Cell(f"{idle} idle", options, is_quick=idle <= 1000, connections=50 + idle)


def _storm_cell(count: int, is_quick: bool = False) -> Cell:
    options = {"connections": count, "size": 1, "warmup": 0}
    return Cell(f"{count} connections", options, is_quick=is_quick, connections=count)


OVERLOAD_LIMIT = 50
OVERLOAD_FACTOR = 10
OVERLOAD_SURPLUS = OVERLOAD_LIMIT * OVERLOAD_FACTOR
OVERLOAD_RATE = 40_000  # messages/s that leave the load's core room for its tries


def _overload_cell(name: str, when_full: str, surplus: int, message: str, more: dict) -> Cell:
    options = {"connections": OVERLOAD_LIMIT, "size": 64, "surplus": surplus, **more}
    server = ("--max-connections", str(OVERLOAD_LIMIT), "--when-full", when_full)
    server += ("--reject-message", message) if message else ()
    return Cell(name, options, server, is_quick=True, connections=OVERLOAD_LIMIT + surplus)


def _overload_cells(**more: object) -> tuple[Cell, ...]:
    return (
        _overload_cell("alone", "queue", 0, "", more),
        _overload_cell("queue", "queue", OVERLOAD_SURPLUS, "", more),
        _overload_cell("refuse", "refuse", OVERLOAD_SURPLUS, "", more),
        _overload_cell("reject", "reject", OVERLOAD_SURPLUS, "", more),
        _overload_cell("reject, told why", "reject", OVERLOAD_SURPLUS, "full, try later\n", more),
    )


def _overload_pair(run: dict, alone: dict) -> dict:
    """What refusing costs: the CPU that the messages do not explain, per try."""
    tries = run.get("surplus", {}).get("attempts", 0)
    if not tries:
        return {}
    spent_us = (run["server_cpu_us"] - alone["server_cpu_us"]) * run["done"]
    return {"cpu_us_per_try": spent_us / tries, "tries_per_s": tries / run["seconds"]}


CPU = Metric("server_cpu_us", "server CPU, us/message", 2, ratio=True, plot=True, log=True)
CPU_CONNECTION = Metric("server_cpu_us", "server CPU, us/connection", 1, ratio=True, plot=True)
RATE = Metric("per_s", "messages/s", 0, ratio=True, plot=True, log=True)
HEADROOM = (
    Metric("server_cpu_percent", "server CPU, %", 0),
    Metric("load_cpu_percent", "load CPU, %", 0),
)
LATENCY = (
    Metric("p50_us", "p50, us", 0),
    Metric("p99_us", "p99, us", 0, ratio=True, plot=True, log=True),
    Metric("p999_us", "p99.9, us", 0),
)

OVERLOAD_METRICS = (
    RATE,
    CPU,
    *LATENCY,
    *HEADROOM,
    Metric("tries_per_s", "tries/s", 0),
    Metric("cpu_us_per_try", "server CPU, us/try", 1),
    *(Metric(f"surplus.{key}", key, 0) for key in ("refused", "reset", "closed", "message")),
    *(Metric(f"surplus.{key}", key, 0) for key in ("queued", "unreachable", "served")),
    Metric("surplus.told_after_p50_us", "told after p50, us", 0),
)

ECHO_CONNECTIONS = (1, 50, 500, 1000, 5000)
ECHO_SIZES = (64, 1024, 16 * 1024, 64 * 1024)

SCENARIOS = (
    Scenario(
        "echo",
        "Echo",
        "Closed loop: each connection has one message in flight.",
        _load("echo"),
        tuple(_echo_cell(n, size) for size in ECHO_SIZES for n in ECHO_CONNECTIONS),
        (CPU, RATE, Metric("mb_per_s", "MB/s", 1), *LATENCY, *HEADROOM),
    ),
    Scenario(
        "pipeline",
        "Echo with 16 messages in flight",
        "Closed loop: each connection has 16 messages in flight, so a read brings several.",
        _load("echo"),
        tuple(_echo_cell(n, 64, depth=16) for n in (1, 50, 500)),
        (CPU, RATE, Metric("mb_per_s", "MB/s", 1), *LATENCY, *HEADROOM),
    ),
    Scenario(
        "pingpong",
        "Ping-pong on one connection",
        "One message in flight; the load polls without sleeping, so only the server's waking up is in it.",
        _load("echo"),
        (Cell("1 x 64 B", {"connections": 1, "size": 64, "busy": True}, is_quick=True),),
        (
            Metric("p50_us", "p50, us", 1, ratio=True, plot=True),
            Metric("p99_us", "p99, us", 1, ratio=True, plot=True),
            Metric("p999_us", "p99.9, us", 1),
            Metric("per_s", "messages/s", 0),
            CPU,
            Metric("server_cpu_percent", "server CPU, %", 0),
        ),
    ),
    Scenario(
        "churn",
        "Churn: connect, one echo, close",
        "50 clients connect, echo 64 B and close, over and over. Latency is from connect to the echo.",
        _load("churn"),
        (Cell("50 clients", {"connections": 50, "size": 64}, is_quick=True),),
        (
            CPU_CONNECTION,
            Metric("per_s", "connections/s", 0, ratio=True, plot=True),
            *LATENCY,
            *HEADROOM,
            Metric("listen_overflows", "dropped by a full backlog", 0),
        ),
    ),
    Scenario(
        "storm",
        "Accept storm",
        "Connections are opened as fast as the server takes them, at most 1,024 unanswered, and kept. "
        "Accepted means that one byte came back on each.",
        _load("storm"),
        (_storm_cell(2000, is_quick=True), _storm_cell(15_000)),
        (
            Metric("accepted_ms", "all accepted, ms", 0, ratio=True, plot=True),
            Metric("connected_ms", "all connected, ms", 0),
            CPU_CONNECTION,
            Metric("p99_us", "p99 connect to echo, us", 0),
            *HEADROOM,
            Metric("listen_overflows", "dropped by a full backlog", 0),
        ),
    ),
    Scenario(
        "idle",
        "Idle and active",
        "64 B echo on 50 connections while others are held idle. The last columns pair each peer with "
        "itself at 0 idle.",
        _load("echo"),
        tuple(_idle_cell(n) for n in (0, 1000, 15_000)),
        (CPU, RATE, *LATENCY, *HEADROOM),
        baseline="0 idle",
    ),
    Scenario(
        "memory",
        "Memory per idle connection",
        "User-space bytes (private pages of smaps_rollup) per connection: after accept only, after one 64 "
        "B echo on each, after all have closed. The kernel's share is not in it.",
        _memory,
        (
            Cell("1000 connections", is_quick=True, connections=1000),
            Cell("15000 connections", connections=15_000),
            Cell("15000, context kept", {}, ("--keep-context",), ("fastaccept",), connections=15_000),
        ),
        (
            Metric("accepted_bytes", "accepted, B", 0, plot=True, log=True),
            Metric("echoed_bytes", "echoed once, B", 0, plot=True, log=True),
            Metric("closed_bytes", "all closed, B", 0),
            Metric("given_back_percent", "given back, %", 0),
            Metric("descriptors_kept", "descriptors not closed", 0),
            Metric("base_mib", "process without them, MiB", 1),
        ),
    ),
    Scenario(
        "overload",
        "Overload",
        f"{OVERLOAD_LIMIT} admitted clients echo 64 B; {OVERLOAD_FACTOR} times as many hammer at the limit,"
        " each trying again 50 to 150 ms after an answer or after 100 ms without one. The last columns pair with"
        " the same limit and no hammering in the same round.",
        _load("echo"),
        _overload_cells(),
        OVERLOAD_METRICS,
        peers=("fastaccept", "fastaccept-spin"),
        baseline="alone",
        pair=_overload_pair,
    ),
    Scenario(
        "overload-paced",
        "Overload at a fixed rate",
        f"The same, with {OVERLOAD_RATE:,} messages/s on a schedule and latency from the scheduled moment: in the closed "
        "loop above the tries cost the load's own core, which is full without them. On a schedule the load polls: its CPU is always full.",
        _load("echo"),
        _overload_cells(rate=OVERLOAD_RATE),
        (*OVERLOAD_METRICS, Metric("late", "not sent in time", 0)),
        peers=("fastaccept", "fastaccept-spin"),
        baseline="alone",
        pair=_overload_pair,
    ),
    Scenario(
        "exhaustion",
        "Exhaustion: 400 clients, 200 descriptors",
        "What a server does while its descriptors are used up, over 2 s, with one admitted client pinging "
        "every 10 ms; what the surplus sees; how long after closes the queue is served. The C server is "
        "the plain one: it does not handle this.",
        _exhaustion,
        (Cell("400 clients", {"clients": 400, "descriptors": 200}, is_quick=True),),
        (
            Metric("cpu_percent", "server CPU, %", 1, plot=True),
            Metric("log_bytes_per_s", "log, B/s", 0),
            Metric("rtt_p50_ms", "RTT p50, ms", 2),
            Metric("rtt_max_ms", "RTT max, ms", 1, plot=True),
            Metric("resume_1_ms", "1 closed: resumed after, ms", 1, plot=True, log=True),
            Metric("resume_20_ms", "20 closed, ms", 1),
            *(Metric(fate, fate, 0) for fate in FATES),
            Metric("is_stuck", "stuck", 0),
        ),
    ),
    Scenario(
        "startup",
        "Start-up",
        "`python -c 'import MODULE'` beside `python -c pass`, in turns.",
        _startup,
        (Cell("import", {"times": 10}, is_quick=True),),
        (
            Metric("import_ms", "import, ms", 1, plot=True),
            Metric("start_ms", "whole process, ms", 1),
            Metric("pass_ms", "python -c pass, ms", 1),
        ),
        needs_module=True,
    ),
)


def derived(scenario: Scenario, run: dict) -> dict:
    """Figures that follow from a run alone."""
    return {"accepted_ms": run["seconds"] * 1e3} if scenario.name == "storm" else {}
