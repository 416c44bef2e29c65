"""What is reported is what was found."""

import csv
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from rich.console import Console

from tests.bench import plot, report
from tests.bench.rounds import Sample

SAMPLES = [
    Sample("json-32", system, number, {"requests/s": rate * number, "core %": 90.0})
    for number in (1, 2, 3)
    for system, rate in (("door", 50.0), ("door-loaded", 25.0), ("nginx", 200.0), ("direct", 400.0))
]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_medians_and_comparisons() -> None:
    found = report.spreads(SAMPLES)
    assert found["json-32", "door", "requests/s"].middle == 100
    assert [(*names, ratio.middle) for *names, ratio in report.ratios(found)] == [
        ("json-32", "door", "nginx", "requests/s", 0.25),
        ("json-32", "door-loaded", "door", "requests/s", 0.5),
    ]


def test_a_comparison_is_one_of_what_was_measured_in_the_same_round() -> None:
    rates = {"door": {1: 10.0, 2: 90.0, 3: 20.0, 5: 30.0}, "nginx": {2: 100.0, 3: 50.0, 4: 40.0, 5: 0.0}}
    samples = [
        Sample("json-32", system, number, {"requests/s": rate})
        for system, rounds in rates.items()
        for number, rate in rounds.items()
    ]
    [(*_, ratio)] = report.ratios(report.spreads(samples))
    assert ratio.values == {2: 0.9, 3: 0.4}
    assert ratio.middle == pytest.approx(0.65)
    assert (ratio.least, ratio.most) == (0.4, 0.9)


def test_files_and_tables_have_it(tmp_path: Path) -> None:
    report.write(SAMPLES, tmp_path)
    assert len(rows(tmp_path / "rounds.csv")) == 24
    summary = {(row["system"], row["measure"]): row for row in rows(tmp_path / "summary.csv")}
    assert [summary["door", "requests/s"][key] for key in ("median", "least", "most")] == ["100", "50", "150"]
    assert [[row[key] for key in ("median", "least", "most", "rounds")] for row in rows(tmp_path / "ratios.csv")] == [
        ["0.25", "0.25", "0.25", "3"],
        ["0.5", "0.5", "0.5", "3"],
    ]
    console = Console(record=True, width=130)
    report.show(SAMPLES, console)
    text = console.export_text()
    assert "JSON, 32 connections" in text
    assert "100 ±50%" in text
    assert "door / nginx: requests/s × 0.25" in text


def test_what_was_not_found_in_every_round_says_so() -> None:
    once = Sample("json-32", "nginx", 2, {"running p50 ms": 7.0})
    twice = [Sample("json-32", "door", number, {"running p50 ms": 4.0}) for number in (1, 3)]
    both = [Sample("json-32", "nginx", 1, {"p50 ms": 8.0}), Sample("json-32", "door", 1, {"p50 ms": 4.0})]
    console = Console(record=True, width=130)
    report.show([*SAMPLES, once, *twice, *both], console)
    text = console.export_text()
    line = next(line for line in text.splitlines() if "running p50 ms" in line)
    assert line.split() == ["running", "p50", "ms", "4", "±0%", "(2", "of", "3)", "7", "(1", "of", "3)"]
    assert "door / nginx: requests/s × 0.25 ±0%, p50 ms × 0.5 (1 of 3)\n" in text


def test_a_plot_has_a_dot_for_each_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dots: list[list[float]] = []
    draw = Axes.plot

    def noted(axes: Axes, places: list[float], heights: list[float], *style: Any, **options: Any) -> object:
        dots.append(heights)
        return draw(axes, places, heights, *style, **options)

    monkeypatch.setattr(Axes, "plot", noted)
    plot.draw(SAMPLES, tmp_path / "plot.png")
    assert dots == [[rate, 2 * rate, 3 * rate] for rate in (50.0, 25.0, 200.0, 400.0)]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
