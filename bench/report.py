"""From results/*.json to RESULTS.md and a picture per scenario.

    python bench/report.py [FOLDER]       writes them again without measuring

A figure is the median of its rounds, with the least and the greatest behind it. A ratio is made inside each
round, run beside run, and the median of these ratios is shown: so it is not the quotient of the two medians
in the table.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from scenarios import SCENARIOS, Metric, Scenario

YARDSTICK = "c"
BASELINE_RATIOS = ("per_s", "server_cpu_us", "p99_us")


def value_of(run: dict, key: str) -> float | None:
    """A figure of a run; a dot in the key goes one level down."""
    found: object = run
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return None if found is None else float(found)


def spread_text(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    middle, least, greatest = statistics.median(values), min(values), max(values)
    text = f"{middle:,.{digits}f}"
    if len(values) > 1 and f"{least:.{digits}f}" != f"{greatest:.{digits}f}":
        text += f" ({least:,.{digits}f} to {greatest:,.{digits}f})"
    return text


class Results:
    """The runs of one scenario, with what pairs of them tell."""

    def __init__(self, scenario: Scenario, stored: dict) -> None:
        self.scenario = scenario
        self.facts: dict[str, str] = stored["facts"]
        self.seconds, self.rounds = stored["seconds"], stored["rounds"]
        self.runs: list[dict] = [dict(run) for run in stored["runs"]]
        self._by_place = {(run["round"], run["cell"], run["peer"]): run for run in self.runs}
        if scenario.pair and scenario.baseline:
            for run in self.runs:
                base = self.baseline_of(run)
                if base and "error" not in run and "error" not in base:
                    run.update(scenario.pair(run, base))

    def cells(self) -> list[str]:
        return list(dict.fromkeys(run["cell"] for run in self.runs))

    def peers(self) -> list[str]:
        return list(dict.fromkeys(run["peer"] for run in self.runs))

    def of(self, cell: str, peer: str) -> list[dict]:
        return [run for run in self.runs if (run["cell"], run["peer"]) == (cell, peer)]

    def yardstick_of(self, run: dict) -> dict | None:
        return self._by_place.get((run["round"], run["cell"], YARDSTICK))

    def baseline_of(self, run: dict) -> dict | None:
        return self._by_place.get((run["round"], self.scenario.baseline, run["peer"]))

    def values(self, cell: str, peer: str, key: str) -> list[float]:
        found = (value_of(run, key) for run in self.of(cell, peer))
        return [value for value in found if value is not None]

    def ratios(self, cell: str, peer: str, key: str, partner: Callable[[dict], dict | None]) -> list[float]:
        """One ratio per round in which both runs succeeded."""
        pairs = ((value_of(run, key), value_of(partner(run) or {}, key)) for run in self.of(cell, peer))
        return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]


def one_line(scenario: Scenario, run: dict) -> str:
    """What the terminal shows while it runs: the figures that are plotted, and the load's headroom."""
    place = f"  {run['round'] + 1}  {run['cell']:<24} {run['peer']:<17}"
    if "error" in run:
        return f"{place} failed: {run['error']}"
    shown = [metric for metric in scenario.metrics if metric.plot or metric.key == "load_cpu_percent"]
    values = ((metric, value_of(run, metric.key)) for metric in shown)
    return place + "  ".join(f"{m.label} {v:,.{m.digits}f}" for m, v in values if v is not None)


def _columns(results: Results) -> list[tuple[str, Callable[[str, str], str]]]:
    """Heading and content of each column after cell and peer."""
    columns: list[tuple[str, Callable[[str, str], str]]] = []

    def add_ratio(heading: str, key: str, partner: Callable[[dict], dict | None]) -> None:
        columns.append((heading, lambda cell, peer: spread_text(results.ratios(cell, peer, key, partner), 3)))

    def add_figure(metric: Metric) -> None:
        columns.append(
            (
                metric.label,
                lambda cell, peer: spread_text(results.values(cell, peer, metric.key), metric.digits),
            )
        )

    for metric in results.scenario.metrics:
        add_figure(metric)
        if metric.ratio and YARDSTICK in results.peers():
            add_ratio(f"{metric.label.split(',')[0]} / C", metric.key, results.yardstick_of)
    if results.scenario.baseline:
        labels = {metric.key: metric.label.split(",")[0] for metric in results.scenario.metrics}
        for key in BASELINE_RATIOS:
            add_ratio(f"{labels[key]} / {results.scenario.baseline}", key, results.baseline_of)
    return columns


def _rows(results: Results) -> Iterable[list[str]]:
    columns = _columns(results)
    for cell in results.cells():
        for peer in results.peers():
            runs = results.of(cell, peer)
            failures = [run["error"] for run in runs if "error" in run]
            if not runs:
                continue
            cells = [content(cell, peer) for _, content in columns]
            if failures:
                cells[0] += f" [{len(failures)} of {len(runs)} failed: {failures[0].replace('|', '/')}]"
            yield [cell, peer, *cells]


def table(results: Results) -> str:
    heads = ["", "server", *(heading for heading, _ in _columns(results))]
    rows = list(_rows(results))
    # A column in which nothing was measured says nothing.
    used = [i for i in range(len(heads)) if i < 2 or any(row[i] != "-" for row in rows)]
    lines = [[heads[i] for i in used], ["---", "---", *["---:"] * (len(used) - 2)]]
    lines += [[row[i] for i in used] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _place_dots(axes, results: Results, metric: Metric) -> None:
    """Cells on the x axis, a colour per peer; or, with one cell, a peer per place."""
    cells, peers = results.cells(), results.peers()
    is_single = len(cells) == 1
    for number, peer in enumerate(peers):
        middles, below, above, places = [], [], [], []
        for place, cell in enumerate(cells):
            values = results.values(cell, peer, metric.key)
            if not values:
                continue
            middle = statistics.median(values)
            places.append(number if is_single else place + (number - (len(peers) - 1) / 2) * 0.8 / len(peers))
            middles.append(middle)
            below.append(middle - min(values))
            above.append(max(values) - middle)
        bars = {"yerr": [below, above], "fmt": "o", "markersize": 5, "capsize": 3, "color": f"C{number}"}
        axes.errorbar(places, middles, label=peer, **bars)
    names = peers if is_single else cells
    is_crowded = len(names) > 4
    turn = {"rotation": 30, "ha": "right"} if is_crowded else {}
    axes.set_xticks(range(len(names)), names, **turn)
    axes.set_title(metric.label, fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    is_positive = all(v > 0 for c in cells for p in peers for v in results.values(c, p, metric.key))
    if metric.log and is_positive:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def picture(results: Results, path: Path) -> bool:
    """Draw the plotted figures; False when matplotlib is not there or nothing was measured."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    measured = {key for run in results.runs for key in run}
    shown = [metric for metric in results.scenario.metrics if metric.plot and metric.key in measured]
    if not shown:
        return False
    places = max(len(results.cells()), len(results.peers()))
    if places > 8:  # one below the other, so that the cells' names can be read
        figure = Figure(figsize=(max(9, 0.9 * places), 3.6 * len(shown)), layout="constrained")
        grid = figure.subplots(len(shown), 1, squeeze=False).flat
    else:
        figure = Figure(figsize=(5.2 * len(shown), 4.2), layout="constrained")
        grid = figure.subplots(1, len(shown), squeeze=False).flat
    for axes, metric in zip(grid, shown):
        _place_dots(axes, results, metric)
    if len(results.cells()) > 1:  # else the servers' names are below the dots
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=8, fontsize=9)
    title = f"{results.scenario.title}: median, least and greatest of {results.rounds} rounds"
    figure.suptitle(title, fontsize=11)
    FigureCanvasAgg(figure).print_png(str(path))
    return True


def _section(results: Results, folder: Path) -> str:
    scenario = results.scenario
    parts = [f"## {scenario.title}", scenario.about, f"{results.rounds} rounds, {results.facts['date']}: `{results.facts['command']}`."]
    image = folder / "results" / f"{scenario.name}.png"
    if picture(results, image):
        parts.append(f"![{scenario.title}](results/{image.name})")
    parts.append(table(results))
    return "\n\n".join(parts)


def write(folder: Path) -> None:
    """Write RESULTS.md and the pictures from all results in the folder."""
    found = []
    for scenario in SCENARIOS:
        path = folder / "results" / f"{scenario.name}.json"
        if path.exists():
            found.append(Results(scenario, json.loads(path.read_text())))
    if not found:
        return
    facts = max((results.facts for results in found), key=lambda facts: facts["date"])
    shown = {name: text for name, text in facts.items() if name not in ("date", "command")}  # each section has its own
    parts = [
        "# Results",
        "Made by `bench/run.py`; [README.md](README.md) says how to read it. Each figure is a median over "
        "interleaved rounds, with the least and the greatest; `/ C` is the median of the ratios to the "
        "plain C epoll server inside each round.",
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in shown.items())]),
    ]
    parts += [_section(results, folder) for results in found]
    (folder / "RESULTS.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
