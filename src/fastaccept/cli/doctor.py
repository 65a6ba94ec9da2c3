"""fastaccept doctor: what will bite first on this machine, how many connections that allows, and how to raise it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from fastaccept.cli import machine, options
from fastaccept.cli.terminal import format_count, table


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="say which limit of this machine bites first, and how to raise it",
        description="The limits of this machine, the connections that each allows, and the command that raises it.",
    )
    parser.add_argument(
        "-n", "--connections", type=options.count, metavar="N", help="check a wish: exit code 1 if a limit is below N connections"
    )
    parser.add_argument("--json", metavar="FILE", help="write it as JSON, - = to stdout")


def run(args: argparse.Namespace) -> int:
    limits = machine.probe()
    too_low = [
        limit for limit in limits if args.connections and limit.connections is not None and limit.connections < args.connections
    ]
    if args.json:
        write_json(limits, args.json)
    if args.json != "-":
        show(limits, too_low, args.connections)
    return 1 if too_low else 0


def show(limits: list[machine.Limit], too_low: list[machine.Limit], wish: int | None) -> None:
    print(machine.describe())
    print()
    rows = [(limit.name, limit.value, limit.connections, limit.who, limit.when) for limit in limits]
    print(table(["limit", "value", "connections", "for a", "when it is met"], rows))
    first = next((limit for limit in limits if limit.who == "server" and limit.connections is not None), None)
    if first is not None:
        print(f"\nFirst to bite: {first.name}, at {format_count(first.connections or 0)} connections.\nTo raise it: {first.raise_it}")
    if wish:
        print()
        print(f"{format_count(wish)} connections: " + ("nothing is in the way" if not too_low else "too low for that:"))
        for limit in too_low:
            print(f"  {limit.name} ({limit.value}), for a {limit.who}: {limit.raise_it}")


def write_json(limits: list[machine.Limit], file: str) -> None:
    text = json.dumps({"machine": machine.describe(), "limits": [dataclasses.asdict(limit) for limit in limits]}, indent=2)
    if file == "-":
        print(text)
        return
    with open(file, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
