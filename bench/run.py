"""Measure everything, or what is asked for, and write the tables and pictures.

    python bench/run.py                                    all scenarios, all installed peers
    python bench/run.py --quick                            a few seconds per scenario, to see that all works
    python bench/run.py --scenario echo churn --peers c fastaccept uvloop --rounds 5 --seconds 3

The rounds are interleaved: in every round each cell is measured with each peer in turn, so a slow phase of
the machine meets all of them, and the ratios pair runs that stood side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import machine
import report
from harness import BUILD, HERE, PEERS, Bench, Peer, RunError, build, find_compiler
from scenarios import SCENARIOS, Cell, Scenario, allows, cells_of, derived

Save = Callable[[list[dict]], None]
DISTRIBUTIONS = [peer.distribution for peer in PEERS if peer.distribution]


def parse_arguments() -> argparse.Namespace:
    scenarios, peers = [scenario.name for scenario in SCENARIOS], [peer.name for peer in PEERS]
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--scenario",
        nargs="+",
        choices=scenarios,
        default=scenarios,
        metavar="NAME",
        help=", ".join(scenarios),
    )
    add("--peers", nargs="+", choices=peers, metavar="NAME", help=", ".join(peers))
    add("--cells", nargs="+", metavar="TEXT", help="only cells whose name contains one of these")
    add("--rounds", type=int, help="default 5, quick 2")
    add("--seconds", type=float, help="of the measured phase; default 2, quick 0.5")
    add("--warmup", type=float, help="seconds before it; default 0.5, quick 0.2")
    add("--rate", type=float, default=0.0, help="echoes: messages/s on a schedule instead of a closed loop")
    add("--quick", action="store_true", help="few cells, short runs, written to bench/build/quick")
    add("--output", type=Path, help="folder for RESULTS.md and results/; default bench/")
    add("--server-core", type=int, default=cores[0])
    add("--load-core", type=int, default=cores[-1])
    add("--list", action="store_true", help="show the scenarios and their cells, measure nothing")
    return parser.parse_args()


def choose_peers(scenario: Scenario, names: Sequence[str] | None) -> list[Peer]:
    """The peers that were named, or those of the default set, as far as they are installed."""
    if names:
        wanted = [peer for peer in PEERS if peer.name in names]
    else:
        wanted = [peer for peer in PEERS if peer.is_default or peer.at_home == scenario.name]
    missing = [peer.name for peer in wanted if not peer.is_available()]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}")
    return [peer for peer in wanted if peer.is_available()]


def measure_one(scenario: Scenario, cell: Cell, peer: Peer, bench: Bench) -> dict:
    try:
        figures = scenario.measure(peer, cell, bench)
    except RunError as exc:
        return {"error": str(exc)}
    return {**figures, **derived(scenario, figures)}


def measure_scenario(
    scenario: Scenario, cells: list[Cell], peers: list[Peer], bench: Bench, save: Save
) -> None:
    """Run all rounds; `save` gets the runs so far after each, so that an interrupted command loses little."""
    runs: list[dict] = []
    for number in range(bench.rounds):
        for cell in cells:
            for peer in (peer for peer in peers if allows(scenario, cell, peer)):
                run = measure_one(scenario, cell, peer, bench)
                runs.append({"round": number, "cell": cell.name, "peer": peer.name, **run})
                print(report.one_line(scenario, runs[-1]), flush=True)
        save(runs)


def saver(scenario: Scenario, facts: dict[str, str], bench: Bench, folder: Path) -> Save:
    path = folder / f"{scenario.name}.json"
    head = {"scenario": scenario.name, "facts": facts, "rounds": bench.rounds, "seconds": bench.seconds}

    def save(runs: list[dict]) -> None:
        if runs:
            path.write_text(json.dumps({**head, "runs": runs}, indent=1) + "\n")

    return save


def chosen_cells(scenario: Scenario, bench: Bench, texts: Sequence[str] | None) -> list[Cell]:
    cells = cells_of(scenario, bench)
    return [cell for cell in cells if not texts or any(text in cell.name for text in texts)]


def bench_from(arguments: argparse.Namespace) -> Bench:
    quick = arguments.quick

    def given(value, normal, short):
        return value if value is not None else (short if quick else normal)

    return Bench(
        rounds=given(arguments.rounds, 5, 2),
        seconds=given(arguments.seconds, 2.0, 0.5),
        warmup_s=given(arguments.warmup, 0.5, 0.2),
        server_core=arguments.server_core,
        load_core=arguments.load_core,
        rate=arguments.rate,
        is_quick=quick,
    )


def show_scenarios(bench: Bench) -> None:
    for scenario in SCENARIOS:
        print(f"{scenario.name}: {', '.join(cell.name for cell in cells_of(scenario, bench))}")


def show_facts(facts: dict[str, str], bench: Bench) -> None:
    for name, text in facts.items():
        print(f"{name:>20}: {text}")
    if bench.server_core == bench.load_core:
        print("one core for both: the figures mean little")


def main() -> int:
    arguments = parse_arguments()
    bench = bench_from(arguments)
    if arguments.list:
        show_scenarios(bench)
        return 0
    facts = machine.facts(DISTRIBUTIONS, (bench.server_core, bench.load_core), find_compiler())
    show_facts(facts, bench)
    build()
    output = arguments.output or (BUILD / "quick" if bench.is_quick else HERE)
    folder = output / "results"
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    for scenario in (scenario for scenario in SCENARIOS if scenario.name in arguments.scenario):
        cells = chosen_cells(scenario, bench, arguments.cells)
        print(f"\n{scenario.title}: {len(cells)} cells, {bench.rounds} rounds")
        peers = choose_peers(scenario, arguments.peers)
        measure_scenario(scenario, cells, peers, bench, saver(scenario, facts, bench, folder))
    report.write(output)
    print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes; the tables are in {output.name}/RESULTS.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
