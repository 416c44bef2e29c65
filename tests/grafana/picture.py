"""A dashboard as a picture, from the data that its queries return: what there is to look at where there is no Grafana.

Strategy: the same grid, kinds, units and colours as in the dashboard's JSON, drawn by matplotlib. It is no copy of
Grafana's drawing; it shows whether the numbers, names and places tell what is wrong.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from matplotlib import pyplot
from matplotlib.axes import Axes

from tests.grafana.filling import Range, ask, fill, is_sql, text_of
from tests.grafana.scene import Scene

_COLOURS: Final = {"green": "#37872d", "yellow": "#c69026", "red": "#c4162a"}
_COLUMN_IN, _ROW_IN = 1.0, 0.55  # of Grafana's grid
_ROWS_MAX = 9  # of a table
_CELL_MAX = 14  # characters


def draw(dashboard: dict[str, Any], scene: Scene, values: dict[str, str], path: Path) -> None:
    """Write a PNG."""
    pyplot.switch_backend("agg")
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = pyplot.figure(figsize=(24 * _COLUMN_IN, height * _ROW_IN))
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, width = place["x"] / 24, place["w"] / 24
        bottom, tall = 1 - (place["y"] + place["h"]) / height, place["h"] / height
        if panel["type"] == "row":
            figure.text(0.005, bottom + tall / 3, panel["title"], fontsize=15, weight="bold")
            continue
        axes = figure.add_axes((left + 0.022, bottom + 0.2 * tall, width - 0.032, 0.62 * tall))
        axes.set_title(fill(panel["title"], values), fontsize=12, loc="left")
        _KINDS[panel["type"]](axes, panel, scene, values)
    figure.savefig(path, dpi=70)
    pyplot.close(figure)


def _stat(axes: Axes, panel: dict[str, Any], scene: Scene, values: dict[str, str]) -> None:
    axes.axis("off")
    said = []
    for target in panel["targets"]:
        for name, points in _series(target, scene, values):
            last = [value for _, value in points if not math.isnan(value)][-1:]
            said += [(name, value) for value in last]
    defaults = panel["fieldConfig"]["defaults"]
    words = {key: word for mapping in defaults.get("mappings", ()) for key, word in mapping["options"].items()}
    texts = []
    colour = "none"
    for name, value in said:
        word = words.get(f"{value:g}")
        texts.append(word["text"] if word else f"{_said(value, defaults)} {name}".strip())
        colour = _COLOURS[word["color"]] if word else _colour(value, defaults["thresholds"]["steps"])
    large = panel["options"]["colorMode"] == "background"
    axes.text(
        0.5, 0.4, "\n".join(texts) or "no data", ha="center", va="center", fontsize=20 - 3 * len(texts),
        color="white" if large else colour, bbox={"facecolor": colour, "pad": 8, "lw": 0} if large else None,
    )  # fmt: skip


def _timeseries(axes: Axes, panel: dict[str, Any], scene: Scene, values: dict[str, str]) -> None:
    custom = panel["fieldConfig"]["defaults"]["custom"]
    series = [one for target in panel["targets"] for one in _series(target, scene, values)]
    series = [(name, points) for name, points in series if any(not math.isnan(value) for _, value in points)]
    hides = any(override["matcher"]["id"] == "byValue" for override in panel["fieldConfig"]["overrides"])
    series = [(name, points) for name, points in series if not hides or any(value > 0 for _, value in points)]
    times = sorted({at for _, points in series for at, _ in points})
    moments = [datetime.fromtimestamp(at, UTC) for at in times]
    heights = [[dict(points).get(at, math.nan) for at in times] for _, points in series]
    names = [name for name, _ in series]
    if custom.get("drawStyle") == "bars":
        bottom = [0.0] * len(times)
        for name, found in zip(names, heights, strict=True):
            axes.bar(moments, _zeros(found), 0.8, align="edge", bottom=bottom, label=name)  # type: ignore[arg-type]
            bottom = [low + more for low, more in zip(bottom, _zeros(found), strict=True)]
    elif custom.get("stacking", {}).get("mode") == "normal" and series:
        axes.stackplot(moments, *map(_zeros, heights), labels=names, alpha=0.6)  # type: ignore[arg-type]
    else:
        for name, found in zip(names, heights, strict=True):
            axes.plot(moments, found, label=name, linewidth=1)  # type: ignore[arg-type]
    if custom.get("thresholdsStyle"):
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
            if heights and step["value"] < 2 * max(map(max, map(_zeros, heights))):
                axes.axhline(step["value"], color=_COLOURS[step["color"]], linestyle="--", linewidth=1)
    defaults = panel["fieldConfig"]["defaults"]
    axes.yaxis.set_major_formatter(lambda value, _: _said(value, defaults))
    axes.tick_params(labelsize=8)
    axes.set_ylim(bottom=0)
    axes.set_xlim(datetime.fromtimestamp(scene.began, UTC), datetime.fromtimestamp(scene.ended, UTC))  # type: ignore[arg-type]
    if series:
        axes.legend(fontsize=8, loc="upper left", ncols=2)


def _heatmap(axes: Axes, panel: dict[str, Any], scene: Scene, values: dict[str, str]) -> None:
    (target,) = panel["targets"]
    found = {float(name): [value for _, value in points] for name, points in _series(target, scene, values)}
    bounds = sorted(found)
    columns = len(found[bounds[0]])
    cells = []
    for number, bound in enumerate(bounds):
        below = found[bounds[number - 1]] if number else [0.0] * columns
        cells.append([max(0.0, high - low) for high, low in zip(found[bound], below, strict=True)])
    shown = axes.pcolormesh(cells, cmap="Oranges")
    axes.set_yticks([number + 0.5 for number in range(len(bounds))], [f"{bound:g} s" for bound in bounds], fontsize=6)
    axes.figure.colorbar(shown, ax=axes)


def _table(axes: Axes, panel: dict[str, Any], scene: Scene, values: dict[str, str]) -> None:
    axes.axis("off")
    (target,) = panel["targets"]
    picked = Range(scene.began, scene.ended)
    columns, found = ask(scene.door.ledger_path, fill(picked.fill(text_of(target)), values))
    units = {
        override["matcher"]["options"]: prop["value"]
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "unit"
    }
    defaults = panel["fieldConfig"]["defaults"]
    cells = [
        [_cell(cell, defaults | {"unit": units.get(columns[i], defaults["unit"])}) for i, cell in enumerate(row)]
        for row in found[:_ROWS_MAX]
    ]
    if cells:
        made = axes.table(cells, colLabels=columns, loc="upper center", cellLoc="left")
        made.auto_set_font_size(False)
        made.set_fontsize(8)
    else:
        axes.text(0.5, 0.5, "no rows", ha="center")


def _series(
    target: dict[str, Any], scene: Scene, values: dict[str, str]
) -> list[tuple[str, Sequence[tuple[float, float]]]]:
    picked = Range(scene.began, scene.ended)
    query = fill(picked.fill(text_of(target)), values)
    if is_sql(target):
        columns, rows = ask(scene.door.ledger_path, query)
        if columns[0] != "time":
            return [("", [(picked.end_s, float(row[0])) for row in rows])]
        names = list(dict.fromkeys(row[1] for row in rows))
        return [(name, [(row[0], row[2]) for row in rows if row[1] == name]) for name in names]
    if target["instant"]:
        found = scene.prometheus.at(query, picked.end_s)
    else:
        found = scene.prometheus.over(query, picked.start_s, picked.end_s, picked.step_s)
    legend = target["legendFormat"]
    return [
        (
            re.sub(r"\{\{(\w+)\}\}", lambda label, one=one: one["metric"].get(label[1], ""), legend),  # type: ignore[misc]
            [(float(at), float(value)) for at, value in one.get("values") or [one["value"]]],
        )
        for one in found
    ]


def _zeros(values: Sequence[float]) -> list[float]:
    return [0.0 if math.isnan(value) else value for value in values]


def _colour(value: float, steps: Sequence[dict[str, Any]]) -> str:
    return _COLOURS[[step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]]


def _cell(cell: Any, defaults: dict[str, Any]) -> str:
    return str(cell if cell is not None else "")[:_CELL_MAX] if not isinstance(cell, float) else _said(cell, defaults)


def _said(value: float, defaults: dict[str, Any]) -> str:
    """Return a number in its unit, roughly as Grafana writes it."""
    digits = defaults.get("decimals")
    match defaults["unit"]:
        case "percentunit":
            return f"{value * 100:.{1 if digits is None else digits}f} %"
        case "s":
            return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
        case "bytes":
            return f"{value / 2**20:.3g} MiB"
        case "locale":
            return f"{value:,.{3 if digits is None else digits}f}".rstrip("0").rstrip(".")  # digits are a maximum
        case unit:
            number = f"{value:.3g}" if digits is None else f"{value:.{digits}f}"
            return f"{number} req/s" if unit == "reqps" else number


_KINDS: Final[dict[str, Callable[[Axes, dict[str, Any], Scene, dict[str, str]], None]]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "heatmap": _heatmap,
    "table": _table,
}
