"""fastaccept storm: opens very many connections to a server, says what became of each, holds them, pumps data through them.

The work is done by storm_worker in as many processes as the descriptor limit asks for; this file divides it, shows how it goes,
and adds the reports up.
"""

from __future__ import annotations

import argparse
import collections
import ipaddress
import json
import queue
import socket
import threading
import time
from typing import Any

from fastaccept.cli import CommandError, options
from fastaccept.cli.children import end_child, start_child
from fastaccept.cli.terminal import format_bytes, format_count, format_duration, progress, table

# Descriptors that a process of the storm needs for itself: the interpreter's, epoll's, and a margin.
OWN_DESCRIPTORS = 64
# Ports of one source address towards one target: ip_local_port_range is 28,232 wide by default, and some are in use.
PER_SOURCE = 20_000
NOT_FAILURES = ("served", "queued")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "storm",
        help="test a server with very many connections",
        description="Open N connections, say what became of each, hold them, pump data, close them.",
    )
    parser.add_argument("target", type=options.target, metavar="HOST:PORT", help="the server; on this machine, unless --remote")
    parser.add_argument("-n", "--connections", type=options.count, default=1000, metavar="N", help="connections to open")
    parser.add_argument("--keep-going", action="store_true", help="go on after the first connection that fails")
    parser.add_argument("--no-probe", action="store_true", help="send nothing: a connection counts as served once connected")
    parser.add_argument("--timeout", type=options.seconds, default=5.0, help="seconds for one connect")
    parser.add_argument("--answer", type=options.seconds, default=2.0, help="seconds for the echo of the probe; later = queued")
    parser.add_argument("--hold", type=options.seconds, default=0.001, help="seconds to hold the connections")
    parser.add_argument("--pump", action="store_true", help="send data on each connection and check every byte that comes back")
    parser.add_argument("--size", type=options.size, default=1024, help="bytes of a message of --pump")
    parser.add_argument("--rate", type=options.rate, help="messages a second of --pump in all; default: as fast as they come back")
    parser.add_argument("--seconds", type=options.seconds, default=5.0, help="seconds that --pump lasts")
    parser.add_argument("--abort", action="store_true", help="close with RST instead of FIN")
    parser.add_argument("--processes", type=options.count, help="processes; default: as many as the descriptor limit asks for")
    parser.add_argument("--source", action="append", metavar="ADDRESS", help="connect from this address; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON, - = to stdout")
    parser.add_argument("--remote", action="store_true", help="the target may be another machine: one that you are allowed to load")


def run(args: argparse.Namespace) -> int:
    host = resolve(args.target[0], args.target[1])
    if not args.remote and not is_local(host):
        raise CommandError(f"{args.target[0]} is not this machine; --remote aims at another one")
    report = storm(
        (host, args.target[1]),
        args.connections,
        keep_going=args.keep_going,
        probe=not args.no_probe,
        timeout=args.timeout,
        answer=args.answer,
        hold=args.hold,
        pump={"size": args.size, "rate": args.rate, "seconds": args.seconds} if args.pump else None,
        abort=args.abort,
        processes=args.processes,
        sources=args.source,
    )
    if args.json != "-":
        print(as_text(report))
    if args.json:
        write_json(report, args.json)
    wrong = report["pump"] is not None and report["pump"]["wrong"]
    return 1 if report["failed"] or report["lost"] or wrong else 0


# ---- dividing the work


def resolve(host: str, port: int) -> str:
    """Return a numeric address of a host."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise CommandError(f"{host} can't be resolved: {error.strerror or error}") from None


def is_local(host: str) -> bool:
    """True for an address of this machine: one that a socket can be bound to."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as sock:  # Wine binds UDP to any address
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True


def shares(total: int, processes: int | None) -> list[int]:
    """How many connections each process opens."""
    from fastaccept.descriptors import raise_descriptor_limit

    room = (raise_descriptor_limit() or 10**9) - OWN_DESCRIPTORS
    wanted = processes or -(-total // room)
    if -(-total // wanted) > room:
        raise CommandError(f"{total} connections in {wanted} processes are more than {room} each, which the descriptor limit allows")
    return [total // wanted + (i < total % wanted) for i in range(wanted)]


def sources_for(host: str, index: int, count: int, total: int, given: list[str] | None) -> list[str]:
    """The addresses that process number index connects from; none: the system's choice. Loopback has addresses in plenty, so each
    process has its own there as soon as one address's ports would not do for all."""
    if given:
        return given[index % len(given) :] + given[: index % len(given)]
    address = ipaddress.ip_address(host.partition("%")[0])
    if total <= PER_SOURCE or not address.is_loopback or address.version == 6:
        return []
    per_process = -(-count // PER_SOURCE)
    first = 2 + index * per_process
    return [str(ipaddress.ip_address("127.0.0.0") + first + i) for i in range(per_process)]


# ---- running it


class Worker:
    """A process of the storm, and its latest report."""

    def __init__(self, order: dict[str, Any], reports: queue.Queue[Any]) -> None:
        self.report: dict[str, Any] = {"phase": "opening", "tried": 0, "classes": {}, "pump": None}
        self.is_alive = True
        self.process = start_child("fastaccept.cli.storm_worker")
        self.say(json.dumps(order))
        threading.Thread(target=self._read, args=(reports,), daemon=True).start()

    def _read(self, reports: queue.Queue[Any]) -> None:
        for line in self.process.stdout:
            reports.put((self, json.loads(line)))
        reports.put((self, None))

    def say(self, word: str) -> None:
        try:
            self.process.stdin.write(word + "\n")
        except (BrokenPipeError, ValueError):  # it is gone, which its end of the pipe tells too
            pass


def storm(
    target: tuple[str, int],
    connections: int,
    *,
    keep_going: bool = False,
    probe: bool = True,
    timeout: float = 5.0,
    answer: float = 2.0,
    hold: float = 0.001,
    pump: dict[str, Any] | None = None,
    abort: bool = False,
    processes: int | None = None,
    sources: list[str] | None = None,
    label: str = "connecting",
    on_opened: Any = None,
) -> dict[str, Any]:
    """Run a storm and return its report. on_opened(report) is called while the connections are held."""
    parts = shares(connections, processes)
    reports: queue.Queue[Any] = queue.Queue()
    workers: list[Worker] = []
    started = time.monotonic()
    try:
        for index, count in enumerate(parts):
            order = {
                "target": target, "connections": count, "keep_going": keep_going, "probe": probe, "timeout": timeout,
                "answer": answer, "hold": hold, "abort": abort, "per_source": PER_SOURCE,
                "sources": sources_for(target[0], index, count, connections, sources),
                "pump": dict(pump, rate=pump["rate"] and pump["rate"] / len(parts)) if pump else None,
            }  # fmt: skip
            workers.append(Worker(order, reports))
        with progress(connections, label) as bar:
            _follow(workers, reports, ("opened",), lambda: _show_opening(bar, workers), stop_on_failure=not keep_going)
        opened = summary(workers, connections, time.monotonic() - started)
        if on_opened is not None:
            on_opened(opened)
        _say_all(workers, "go")
        if pump is not None:
            with progress(None, "pumping") as bar:
                _follow(workers, reports, ("done",), lambda: _show_pump(bar, workers))
        else:
            _follow(workers, reports, ("done",), lambda: None)
        report = summary(workers, connections, time.monotonic() - started)
        _say_all(workers, "close")
        _follow(workers, reports, ("closed",), lambda: None)
        report["closed_s"] = max((worker.report.get("closed_s", 0.0) for worker in workers), default=0.0)
        return report
    finally:
        for worker in workers:
            end_child(worker.process)


def _say_all(workers: list[Worker], word: str) -> None:
    for worker in workers:
        worker.say(word)


def _follow(workers: list[Worker], reports: Any, until: tuple[str, ...], show: Any, stop_on_failure: bool = False) -> None:
    """Take reports until every worker has come to one of the phases. A worker that dies is an error, not silence."""
    while not all(worker.report["phase"] in until for worker in workers):
        worker, report = reports.get()
        if report is None:
            if worker.report["phase"] != "closed":
                raise CommandError(f"a process of the storm ended with exit code {worker.process.wait()}")
            continue
        worker.report = report
        if stop_on_failure and report.get("failed"):
            _say_all(workers, "stop")
        show()


def _show_opening(bar: Any, workers: list[Worker]) -> None:
    classes = _classes(workers)
    done = sum(n for name, n in classes.items() if name != "connecting")
    bar.note(", ".join(f"{format_count(n)} {name}" for name, n in sorted(classes.items()) if n and name != "connecting"))
    bar.advance(done - bar.count)


def _show_pump(bar: Any, workers: list[Worker]) -> None:
    done = sum(worker.report["pump"]["messages"] for worker in workers if worker.report.get("pump"))
    bar.advance(done - bar.count)


# ---- what came of it


def _classes(workers: list[Worker]) -> collections.Counter[str]:
    return sum((collections.Counter(worker.report["classes"]) for worker in workers), collections.Counter())


def summary(workers: list[Worker], asked: int, seconds: float) -> dict[str, Any]:
    """Add the workers' reports up."""
    classes = _classes(workers)
    opened_s = max((worker.report.get("opened_s") or seconds) for worker in workers)
    failed = sum(n for name, n in classes.items() if name not in NOT_FAILURES)
    pumps = [worker.report["pump"] for worker in workers if worker.report.get("pump")]
    return {
        "asked": asked,
        "tried": sum(worker.report["tried"] for worker in workers),
        "made": classes["served"] + classes["queued"],
        "classes": {name: n for name, n in sorted(classes.items()) if n},
        "failed": failed,
        "lost": dict(sum((collections.Counter(worker.report.get("lost", {})) for worker in workers), collections.Counter())),
        "errors": dict(sum((collections.Counter(worker.report.get("errors", {})) for worker in workers), collections.Counter())),
        "processes": len(workers),
        "opened_s": opened_s,
        "rate_per_s": classes["served"] / opened_s if opened_s else 0.0,
        "pump": _add_pumps(pumps) if pumps else None,
    }


def _add_pumps(pumps: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = max(pump["seconds"] for pump in pumps)
    latencies: collections.Counter[int] = collections.Counter()
    for pump in pumps:
        latencies.update({int(us): n for us, n in pump["latencies_us"].items()})
    messages = sum(pump["messages"] for pump in pumps)
    return {
        "messages": messages,
        "wrong": sum(pump["wrong"] for pump in pumps),
        "seconds": seconds,
        "messages_per_s": messages / seconds,
        "bytes_per_s": sum(pump["bytes"] for pump in pumps) / seconds,
        "p50_us": percentile(latencies, 50),
        "p99_us": percentile(latencies, 99),
        "p99_9_us": percentile(latencies, 99.9),
    }


def percentile(histogram: collections.Counter[int], percent: float) -> int:
    """The value that percent of the counted values do not exceed; 0 for an empty histogram."""
    wanted = sum(histogram.values()) * percent / 100
    seen = 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= wanted:
            return value
    return 0


def as_text(report: dict[str, Any]) -> str:
    lines = [
        f"{format_count(report['made'])} of {format_count(report['asked'])} connections made in {format_duration(report['opened_s'])}"
        f" ({format_count(report['rate_per_s'])}/s, {report['processes']} process{'es' if report['processes'] > 1 else ''})",
        table(["what became of them", "connections"], sorted(report["classes"].items())),
    ]
    if report["tried"] < report["asked"]:
        lines.append(f"stopped at the first failure, after {format_count(report['tried'])}; --keep-going goes on")
    lines += [f"lost while held: {format_count(n)} by {name}" for name, n in report["lost"].items()]
    lines += [f"{format_count(n)} x {text}" for text, n in report["errors"].items()]
    pump = report["pump"]
    if pump:
        lines.append(
            f"pump: {format_count(pump['messages_per_s'])} messages/s, {format_bytes(pump['bytes_per_s'])}/s, latency p50 "
            f"{format_duration(pump['p50_us'] / 1e6)}, p99 {format_duration(pump['p99_us'] / 1e6)}, p99.9 "
            f"{format_duration(pump['p99_9_us'] / 1e6)}; {format_count(pump['messages'])} messages checked, "
            f"{format_count(pump['wrong'])} wrong"
        )
    return "\n".join(lines)


def write_json(report: dict[str, Any], file: str) -> None:
    text = json.dumps(report, indent=2)
    if file == "-":
        print(text)
        return
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
