"""From a published price list to the integers that are charged.

Strategy: a list price keeps the decimals as they were published; gaps are filled in exact fractions, then every rate is
converted and rounded up once, to a micro-unit per million tokens. The version's id is the hash of all that went in, so
the same content has the same id on every machine and after every restart.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final

import orjson

from nexus_proxy.core.money.amounts import parse_decimal
from nexus_proxy.core.money.prices import Price, PriceVersion, Rates, Schedule, Tariff, Tier

KINDS: Final[tuple[str, ...]] = ("input", "cached_input", "cache_write", "output", "thinking")
# micro-units per million tokens: one whole unit a token; with TOKENS_MAX no hold can leave int64
RATE_MAX: Final = 10**12
TOKENS_MAX: Final = 10_000_000  # of a model's context, output and thinking
_PLACES: Final = 12


@dataclass(frozen=True, slots=True)
class ListPrice:
    """A price as published, decimals as text: `input`, `output`, and where they differ `cached_input`, `cache_write`,
    `thinking`; `tiers` (each with `input_max`, `output_max` and its own kinds) and `off_peak` (kinds alone)."""

    currency: str
    listed: Mapping[str, Any]
    about: Mapping[str, Any]  # where it was published: source, source_date, confidence, notes


def exact(text: str) -> Fraction:
    """Return a decimal text exactly. ValueError if it is none, or is negative."""
    value = Fraction(parse_decimal(text, _PLACES), 10**_PLACES)
    if value < 0:
        raise ValueError(f"expected a decimal that is not negative, not {text!r}")
    return value


def build_tariff(
    listed: ListPrice, *, model: str, provider: str, currency: str, fx: str, markup: str, schedule: Schedule | None
) -> tuple[Tariff, tuple[PriceVersion, ...]]:
    """Convert a list price for one model. `fx` is the worth of one unit of the list's currency. ValueError if the list
    is not a complete price."""
    periods = ["peak", "off_peak"] if "off_peak" in listed.listed and schedule is not None else ["peak"]
    versions = []
    for period in periods:
        source = {
            **{key: value for key, value in listed.listed.items() if key != "off_peak"},
            **(listed.listed["off_peak"] if period == "off_peak" else {}),
            **listed.about,
            "currency": listed.currency,
            "fx": fx,
            "markup": markup,
            "period": period if len(periods) > 1 else "always",
        }
        tables = _fill_gaps(listed.listed, off_peak=period == "off_peak")
        tiers = _convert(tables, exact(fx) * exact(markup))
        cost_tiers = _convert(tables, Fraction(1))
        content = [model, provider, currency, source, [_plain(t) for t in tiers], [_plain(t) for t in cost_tiers]]
        price_id = hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
        versions.append(PriceVersion(Price(price_id, tiers, cost_tiers, listed.currency), model, provider, source))
    if len(versions) == 1:
        return Tariff(versions[0].price), tuple(versions)
    return Tariff(versions[0].price, versions[1].price, schedule), tuple(versions)


_Table = tuple[int | None, int | None, dict[str, Fraction]]


def _fill_gaps(listed: Mapping[str, Any], *, off_peak: bool) -> list[_Table]:
    """Complete every tier: a kind that it lacks is the base's, scaled by the ratio of the input prices.

    Exact; the rounding comes with the conversion.
    """
    base = {kind: exact(listed[kind]) for kind in KINDS if listed.get(kind) is not None}
    if "input" not in base or "output" not in base:
        raise ValueError("expected at least input and output")
    if off_peak and listed.get("tiers"):
        raise ValueError("tiers cannot have an off-peak price")
    tables: list[_Table] = []
    for tier in [listed["off_peak"]] if off_peak else listed.get("tiers") or [{"input": listed["input"]}]:
        given = {kind: exact(tier[kind]) for kind in KINDS if tier.get(kind) is not None}
        if "input" not in given or (not base["input"] and given["input"] and base.keys() - given):
            raise ValueError("expected a tier to have input, and all kinds of the base where its input price is 0")
        ratio = given["input"] / base["input"] if base["input"] else Fraction(1)
        kinds = {kind: price * ratio for kind, price in base.items()} | given
        # What the whole list does not price apart costs what the tier's own input or output does.
        kinds.setdefault("cached_input", kinds["input"])
        kinds.setdefault("cache_write", kinds["input"])
        kinds.setdefault("thinking", kinds["output"])
        tables.append((tier.get("input_max"), tier.get("output_max"), kinds))
    _check_order(tables)
    return tables


def _check_order(tables: list[_Table]) -> None:
    bounds = [(math.inf if i is None else i, math.inf if o is None else o) for i, o, _ in tables]
    if bounds[-1] != (math.inf, math.inf):
        raise ValueError("expected the last tier to have no input_max and no output_max")
    if any(before >= after for before, after in pairwise(bounds)):
        raise ValueError("expected tiers in rising order of input_max, then output_max")


def _convert(tables: list[_Table], factor: Fraction) -> tuple[Tier, ...]:
    tiers = []
    for input_max, output_max, kinds in tables:
        rates = [math.ceil(kinds[kind] * factor * 1_000_000) for kind in KINDS]
        if max(rates) > RATE_MAX:
            raise ValueError(f"expected at most {RATE_MAX // 1_000_000} per million tokens")
        tiers.append(Tier(input_max, output_max, Rates(*rates)))
    return tuple(tiers)


def _plain(tier: Tier) -> list[int | None]:
    rates = tier.rates
    return [
        tier.input_max,
        tier.output_max,
        rates.input,
        rates.cached,
        rates.cache_write,
        rates.output,
        rates.thinking,
    ]
