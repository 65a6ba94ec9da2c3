"""fastaccept doctor: which limit of this machine bites first, what that looks like, and what raises it."""

from __future__ import annotations

import argparse
import json
import platform

from fastaccept.cli import COMMANDS, CommandError, options, package_version
from fastaccept.cli import machine as machines
from fastaccept.cli.machine import HELD, WAITING, Limit, Machine
from fastaccept.cli.terminal import format_bytes, format_count, table

DESCRIPTION = """Reads the limits of this machine and of this process, and says how many TCP connections each
allows, what one sees when it bites, and the command that raises it. Changes nothing. Limits of a process
(descriptors) are those of the doctor's own, which a server started from the same shell would have."""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("doctor", help=COMMANDS["doctor"], description=DESCRIPTION)
    parser.add_argument(
        "-n",
        "--connections",
        type=options.count,
        metavar="N",
        help="check a wish: name the limits below N connections; exit code 1 if there are any",
    )
    parser.add_argument(
        "--role",
        choices=machines.BOTH,
        default=machines.SERVER,
        help="judge for a server, or for a load generator, which needs local ports as well",
    )
    parser.add_argument(
        "--queued",
        type=_bytes,
        metavar="BYTES",
        default=machines.QUEUED_BYTES,
        help="bytes assumed to wait in the socket buffers of each connection, 0 for idle ones",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the report as JSON to FILE; - or nothing is stdout, instead of the text",
    )


def run(args: argparse.Namespace) -> int:
    try:
        machine = machines.probe(args.queued)
    except machines.UnsupportedSystem as error:
        raise CommandError(f"doctor {error}") from None
    wanted = args.connections
    too_low = [] if wanted is None else machines.below(machine.limits, args.role, wanted)
    if args.json is not None:
        _write_json(_json_report(machine, args, too_low), args.json)
    if args.json != "-":
        print("\n\n".join(_text_report(machine, args, too_low)))
    return 1 if too_low else 0


def _bytes(word: str) -> int:
    """Like every size, and 0."""
    return 0 if word.strip() == "0" else options.size(word)


# ---- text

def _text_report(machine: Machine, args: argparse.Namespace, too_low: list[Limit]) -> list[str]:
    held = machines.by_connections(limit for limit in machine.limits if limit.kind == HELD)
    waiting = machines.by_connections(limit for limit in machine.limits if limit.kind == WAITING)
    parts = [_machine_line(machine), _limit_table("connections", held)]
    if waiting:
        parts.append(_limit_table("clients at once", waiting))
    parts.append(_notes([*held, *waiting]))
    parts.append(_commands([*held, *waiting] if args.connections is None else too_low, args.connections))
    parts.append(_assumptions(args.queued))
    parts.append(_first_line(machine, args.role, args.connections))
    if args.connections is not None:
        parts.append(_verdict(args.connections, args.role, too_low))
    return parts


def _machine_line(machine: Machine) -> str:
    facts = machine.facts
    memory = [
        f"{format_bytes(facts[key])}{word}"
        for key, word in (
            ("memory_bytes", " memory"),
            ("memory_available_bytes", " available"),
            ("memory_free_bytes", " free"),
        )
        if facts.get(key) is not None
    ]
    cpus = facts["cpus"]
    return "; ".join([
        str(facts["system"]),
        f"{cpus} CPU" + ("" if cpus == 1 else "s"),
        ", ".join(memory) or "memory unknown",
        f"Python {platform.python_version()}",
        f"fastaccept {package_version()}",
    ])  # fmt: skip


def _limit_table(of_what: str, limits: list[Limit]) -> str:
    rows = [
        (
            limit.name,
            limit.shown if limit.unit == "bytes" or limit.value is None else f"{limit.shown} {limit.unit}",
            "-" if limit.connections is None else format_count(limit.connections),
            limit.per,
            "load generator" if limit.roles == (machines.CLIENT,) else "",
            limit.symptom,
        )
        for limit in limits
    ]
    # The column of roles is there only where it says something.
    if not any(row[4] for row in rows):
        return table(
            ("limit", "value", of_what, "per", "when it bites"), [(*row[:4], row[5]) for row in rows]
        )
    return table(("limit", "value", of_what, "per", "only for", "when it bites"), rows)


def _notes(limits: list[Limit]) -> str:
    return "Notes:\n" + "\n".join(f"  {limit.name}: {limit.note}" for limit in limits if limit.note)


def _commands(limits: list[Limit], wanted: int | None) -> str:
    """What raises each of them; for so many connections, or else for twice as many as now."""
    rows = [(limit.name, remedy) for limit in limits if (remedy := limit.remedy(wanted))]
    if not rows:
        return "To raise: nothing"
    width = max(len(name) for name, _ in rows)
    title = "To double (as root):" if wanted is None else f"To raise for {format_count(wanted)} (as root):"
    return "\n".join([title, *(f"  {name.ljust(width)}  {remedy}" for name, remedy in rows)])


def _assumptions(queued_bytes: int) -> str:
    return (
        f"Assumed: {format_bytes(machines.IDLE_BYTES)} of kernel memory for an idle connection, "
        f"{format_bytes(queued_bytes)} more queued in each (--queued), "
        f"{machines.RESERVED_DESCRIPTORS} descriptors for other files.\n"
        "Server and clients on one machine: each connection counts twice in what is per machine."
    )


def _first_line(machine: Machine, role: str, wanted: int | None) -> str:
    first = machines.first_to_bite(machine.limits, role)
    if first is None:
        return "First to bite: nothing that can be read here"
    return (
        f"First to bite: {first.name}, at {format_count(first.connections)} connections: {first.symptom}\n"
        f"  {first.remedy(wanted)}"
    )


def _verdict(wanted: int, role: str, too_low: list[Limit]) -> str:
    wish = f"{format_count(wanted)} connections, {role}"
    if not too_low:
        return f"{wish}: no limit is below"
    lines = [f"  {limit.name}: {format_count(limit.connections)}" for limit in too_low]
    return "\n".join([f"{wish}: {len(too_low)} limit{'s are' if len(too_low) > 1 else ' is'} below:", *lines])


# ---- JSON

def _json_report(machine: Machine, args: argparse.Namespace, too_low: list[Limit]) -> dict[str, object]:
    first = machines.first_to_bite(machine.limits, args.role)
    wanted = args.connections
    return {
        "machine": {
            **machine.facts,
            "python": platform.python_version(),
            "fastaccept": package_version(),
        },
        "role": args.role,
        "assumed": {
            "idle_bytes": machines.IDLE_BYTES,
            "queued_bytes": args.queued,
            "reserved_descriptors": machines.RESERVED_DESCRIPTORS,
        },
        "limits": [
            machines.as_json(limit, wanted if limit.kind == HELD else None)
            for limit in machines.by_connections(machine.limits)
        ],
        "first": None if first is None else first.name,
        "wanted": wanted,
        "below": None if wanted is None else [limit.name for limit in too_low],
    }


def _write_json(report: dict[str, object], target: str) -> None:
    text = json.dumps(report, indent=2)
    if target == "-":
        print(text)
        return
    with open(target, "w", encoding="utf-8") as file:
        file.write(text + "\n")
