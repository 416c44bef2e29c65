"""What a run has found, for a person and for a program.

Strategy: of each figure the median of its rounds, the least and the most, and how it compares with the other systems'.
A comparison is made within each round, where both were measured in the same minute, and the median of these is told.
The files have every round as well.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.door import Door
from tests.bench.loaded import LoadedDoor
from tests.bench.rounds import Sample
from tests.bench.scenarios import SCENARIOS
from tests.bench.systems import Direct

_NO_RATIO = ("core %", "MiB before", "MiB")
_SPREAD = ("median", "least", "most", "rounds")
_NO_PROXY = (Direct.name, Door.name, LoadedDoor.name)


@dataclass(frozen=True, slots=True)
class Spread:
    """Something that was found in each of some rounds."""

    values: Mapping[int, float]  # by round

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values.values())

    @property
    def least(self) -> float:
        """The least."""
        return min(self.values.values())

    @property
    def most(self) -> float:
        """The most."""
        return max(self.values.values())

    def over(self, other: "Spread") -> "Spread | None":
        """Return how many times the other it is, in each round that has both, the other above 0; None without any."""
        both = [number for number in self.values if other.values.get(number, 0) > 0]
        return Spread({number: self.values[number] / other.values[number] for number in both}) if both else None


Found = dict[tuple[str, str, str], Spread]


def spreads(samples: Sequence[Sample]) -> Found:
    """Return every figure by scenario, system and measure, in the order in which they were found first."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for sample in samples:
        for name, value in sample.figures.items():
            found.setdefault((sample.scenario, sample.system, name), {})[sample.round] = value
    return {key: Spread(values) for key, values in found.items()}


def ratios(found: Found) -> Iterator[tuple[str, str, str, str, Spread]]:
    """Yield scenario, system, the system that it is compared with, measure and each round's ratio.

    The door is compared with every other proxy, the loaded door with the empty one.
    """
    for (scenario, system, name), spread in found.items():
        if name in _NO_RATIO or name.startswith("added "):
            continue
        for other in {key[1]: None for key in found if key[0] == scenario}:
            wanted = (system == Door.name and other not in _NO_PROXY) or (system, other) == (LoadedDoor.name, Door.name)
            against = found.get((scenario, other, name)) if wanted else None
            ratio = spread.over(against) if against is not None else None
            if ratio is not None:
                yield scenario, system, other, name, ratio


def write(samples: Sequence[Sample], directory: Path) -> None:
    """Write `rounds.csv`, `summary.csv` and `ratios.csv`."""
    found = spreads(samples)
    rounds = (
        (sample.scenario, sample.system, sample.round, name, value)
        for sample in samples
        for name, value in sample.figures.items()
    )
    summary = ((*key, spread.middle, spread.least, spread.most, len(spread.values)) for key, spread in found.items())
    compared = ((*names, ratio.middle, ratio.least, ratio.most, len(ratio.values)) for *names, ratio in ratios(found))
    _csv(directory / "rounds.csv", ("scenario", "system", "round", "measure", "value"), rounds)
    _csv(directory / "summary.csv", ("scenario", "system", "measure", *_SPREAD), summary)
    _csv(directory / "ratios.csv", ("scenario", "system", "against", "measure", *_SPREAD), compared)


def _csv(path: Path, head: Sequence[str], rows: Iterator[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for row in rows:
            writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])


def show(samples: Sequence[Sample], console: Console) -> None:
    """Print a table for each scenario, a line for each measure and a column for each system; then the comparisons."""
    found = spreads(samples)
    for scenario in {key[0]: None for key in found}:
        systems = sorted({key[1] for key in found if key[0] == scenario}, key=_rank)
        table = Table(title=f"{scenario}: {SCENARIOS[scenario].about}", title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("", no_wrap=True)
        rounds = max(len(spread.values) for key, spread in found.items() if key[0] == scenario)
        for system in systems:
            table.add_column(system, justify="right", no_wrap=True)
        for name in {key[2]: None for key in found if key[0] == scenario}:
            table.add_row(name, *(_cell(found.get((scenario, system, name)), rounds) for system in systems))
        console.print(table)
        compared: dict[tuple[str, str], list[str]] = {}
        for of, system, other, name, ratio in ratios(found):
            if of == scenario:
                compared.setdefault((system, other), []).append(f"{name} × {_cell(ratio, rounds)}")
        for (system, other), texts in compared.items():
            console.print(f" {system} / {other}: {', '.join(texts)}", highlight=False)
        console.print()
    console.print("Medians of the rounds, ± half of the way from the least to the most; × of each round's own ratio.")
    console.print("'added' is what a proxy adds to the time without any.")
    console.print(
        "'running' is while all streams were open and none was over. CPU µs/stream is the rest: to open and end one."
    )
    console.print("Where core % is far below 100, the load is the limit, not the system: compare the CPU time.")


def _rank(system: str) -> tuple[bool, bool, str]:
    return (system != Door.name, system != LoadedDoor.name, system)


def _cell(spread: Spread | None, rounds: int) -> str:
    if spread is None:
        return ""
    middle, found = spread.middle, len(spread.values)
    of = "" if found == rounds else f" [dim]({found} of {rounds})[/]"
    if found == 1 or not middle:
        return _number(middle) + of
    half = (spread.most - spread.least) / 2 / abs(middle)
    return f"{_number(middle)} [dim]±{half:.0%}[/]{of}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
