"""The same as one picture: a panel for each measure, the scenarios side by side, a dot for each round.

Strategy: no window is opened, so it runs where there is no screen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib import pyplot

from tests.bench.report import spreads
from tests.bench.rounds import Sample

PANELS: Final = (
    "requests/s", "CPU µs/request", "p50 ms", "p99 ms", "events/s", "CPU µs/event", "running CPU µs/event",
    "CPU µs/stream", "added p50 ms", "added p99 ms", "added running p50 ms", "added running p99 ms",
    "first byte p50 ms", "KiB/stream", "longest ms", "start s",
)  # fmt: skip
_COLUMNS = 2
_LOGARITHMIC = (
    "requests/s", "CPU µs/request", "p50 ms", "p99 ms", "CPU µs/event", "running CPU µs/event", "CPU µs/stream",
    "first byte p50 ms",
)  # fmt: skip


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Write a PNG."""
    pyplot.switch_backend("agg")
    found = spreads(samples)
    panels = [name for name in PANELS if any(key[2] == name for key in found)]
    systems = list({sample.system: None for sample in samples})
    rows = -(-len(panels) // _COLUMNS)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=(15, 3.6 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, panels, strict=False):
        scenarios = list({key[0]: None for key in found if key[2] == name})
        for number, system in enumerate(systems):
            mine = [found.get((scenario, system, name)) for scenario in scenarios]
            colour = f"C{number}"
            shift = (number - (len(systems) - 1) / 2) * 0.8 / len(systems)
            there = [(place + shift, spread) for place, spread in enumerate(mine) if spread is not None]
            heights = [spread.middle for _, spread in there]
            axis.bar([place for place, _ in there], heights, 0.7 / len(systems), color=colour, alpha=0.5, label=system)
            for place, spread in there:
                axis.plot([place] * len(spread.values), [*spread.values.values()], ".", color=colour, markersize=4)
        axis.set_title(name)
        axis.set_xticks(range(len(scenarios)), scenarios, rotation=15, fontsize="small")
        if name in _LOGARITHMIC:
            axis.set_yscale("log")
        axis.grid(axis="y", alpha=0.3)
    handles, labels = _legend(axes, len(panels))
    figure.legend(handles, labels, loc="outside upper center", ncols=len(systems))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _legend(axes: Any, panels: int) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axis in axes.flat[:panels]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
