"""The published price rows, reckoned again: fractions of what stands in the data, and none of the code under test.

Strategy: a row says for which counts which of its tiers holds, by bands of input and, within a band, of output; gaps
are filled as the rules say (an absent kind scales by the ratio of the input prices, no cached price is the input price,
no thinking price is the output price). What is the same as in the charging code is the rule, not one line of it.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

from nexus_proxy.core.money.pricelist import KINDS, ListPrice, build_tariff
from nexus_proxy.core.money.prices import Price, Schedule
from nexus_proxy.core.wire.usage import Usage

ALWAYS_DEAR = Schedule(0, ((0, 86_400),), frozenset(), frozenset())  # any schedule: it makes two periods of a row
FX, MARKUP = "0.1389", "1.175"


def table(name: str) -> Any:
    """Return a table of the package data."""
    return json.loads(resources.files("nexus_proxy.catalogue").joinpath(name).read_text("utf-8"))


@dataclass(frozen=True)
class Band:
    """One tier as it is written: where it ends, and what a million tokens of each kind cost."""

    input_max: float
    output_max: float
    per_million: dict[str, Fraction]


@dataclass(frozen=True)
class Published:
    """One period of one row."""

    name: str
    bands: tuple[Band, ...]
    price: Price  # what the code under test made of it

    def band(self, usage: Usage) -> Band:
        """Return the band that prices these counts."""
        inputs = sorted({band.input_max for band in self.bands if usage.prompt <= band.input_max})
        for edge in inputs:
            fitting = [b for b in self.bands if b.input_max == edge and usage.completion <= b.output_max]
            if fitting:
                return min(fitting, key=lambda band: band.output_max)
        raise AssertionError(self.name)

    def cost_nano(self, usage: Usage) -> int:
        """Return what the provider bills, in nano-units of its currency."""
        return self._nano(usage, Fraction(1))

    def charge_nano(self, usage: Usage) -> int:
        """Return what the account pays: each rate converted and rounded up to a micro-unit per million tokens."""
        return self._nano(usage, Fraction(FX) * Fraction(MARKUP))

    def _nano(self, usage: Usage, factor: Fraction) -> int:
        rates = _rates(self.band(usage), factor)
        fresh = usage.prompt - usage.cached - usage.cache_write
        output = rates["thinking"] if usage.reasoning else rates["output"]
        units = fresh * rates["input"] + usage.cached * rates["cached_input"]
        units += usage.cache_write * rates["cache_write"] + usage.completion * output
        return math.ceil(units * 1000)

    def edges(self) -> tuple[list[int], list[int]]:
        """Return where the bands end, by input and by output."""
        ends = [{int(e) for e in ends if e != math.inf} for ends in zip(*self._ends(), strict=True)]
        return sorted(ends[0]), sorted(ends[1])

    def _ends(self) -> Iterator[tuple[float, float]]:
        for band in self.bands:
            yield band.input_max, band.output_max


_RATES: dict[tuple[int, Fraction], dict[str, Fraction]] = {}


def _rates(band: Band, factor: Fraction) -> dict[str, Fraction]:
    """Micro-units per token of each kind."""
    key = (id(band), factor)
    if key not in _RATES:
        micro = {kind: Fraction(math.ceil(price * factor * 10**6)) for kind, price in band.per_million.items()}
        _RATES[key] = {kind: price / 10**6 for kind, price in micro.items()}
    return _RATES[key]


@cache
def every_price() -> tuple[Published, ...]:
    """Return every period of every row that may price anything."""
    return tuple(one for row in table("prices.json") if "withheld" not in row for one in _periods(row))


def _periods(row: dict[str, Any]) -> Iterator[Published]:
    listed = {key: row[key] for key in (*KINDS, "tiers", "off_peak") if key in row}
    schedule = ALWAYS_DEAR if "off_peak" in row else None
    tariff, _ = build_tariff(
        ListPrice(row["currency"], listed, {}),
        model=row["upstream"],
        provider=row["provider"],
        currency="EUR",
        fx=FX,
        markup=MARKUP,
        schedule=schedule,
    )
    name = f"{row['provider']} {row['currency']} {row['upstream']}"
    yield Published(name, tuple(_bands(row, row.get("tiers") or [{}])), tariff.peak)
    if tariff.off_peak is not None:
        yield Published(f"{name} off-peak", tuple(_bands(row, [row["off_peak"]])), tariff.off_peak)


def _bands(row: dict[str, Any], tiers: list[dict[str, Any]]) -> Iterator[Band]:
    for tier in tiers:
        given = tier or row
        ratio = Fraction(given["input"]) / Fraction(row["input"]) if Fraction(row["input"]) else Fraction(1)
        price = {kind: Fraction(row[kind]) * ratio for kind in KINDS if kind in row}
        price |= {kind: Fraction(given[kind]) for kind in KINDS if kind in given}
        price = {"cached_input": price["input"], "cache_write": price["input"], "thinking": price["output"]} | price
        yield Band(tier.get("input_max", math.inf), tier.get("output_max", math.inf), price)
