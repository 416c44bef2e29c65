"""From published decimals to integers."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.money.pricelist import KINDS, ListPrice, build_tariff
from nexus_proxy.core.money.prices import PriceVersion, Rates, Schedule, Tariff, Tier

SCHEDULE = Schedule(0, ((0, 3600),), frozenset(), frozenset())


def build(
    listed: dict[str, Any], fx: str = "1", markup: str = "1", schedule: Schedule | None = None
) -> tuple[Tariff, tuple[PriceVersion, ...]]:
    price = ListPrice("CNY", listed, {"source": "a page"})
    return build_tariff(price, model="m", provider="p", currency="USD", fx=fx, markup=markup, schedule=schedule)


def test_gaps_take_the_input_and_the_output_price() -> None:
    tariff, _ = build({"input": "2", "output": "6"})
    assert tariff.peak.tiers == (Tier(None, None, Rates(2_000_000, 2_000_000, 2_000_000, 6_000_000, 6_000_000)),)


def test_a_kind_that_a_tier_lacks_scales_by_the_ratio_of_the_input_prices_rounded_up() -> None:
    listed = {
        "input": "0.3",
        "cached_input": "0.1",
        "output": "1",
        "thinking": "4",
        "tiers": [{"input_max": 128, "input": "0.3"}, {"input": "1", "output": "3"}],
    }
    tariff, _ = build(listed)
    first, second = tariff.peak.tiers
    assert first == Tier(128, None, Rates(300_000, 100_000, 300_000, 1_000_000, 4_000_000))
    assert second == Tier(None, None, Rates(1_000_000, 333_334, 1_000_000, 3_000_000, 13_333_334))


def test_a_tier_without_a_thinking_price_thinks_at_its_own_output_price() -> None:
    listed = {"input": "1", "output": "5", "tiers": [{"input_max": 9, "input": "1"}, {"input": "6", "output": "60"}]}
    tariff, _ = build(listed)
    assert tariff.peak.tiers[1].rates == Rates(6_000_000, 6_000_000, 6_000_000, 60_000_000, 60_000_000)


def test_the_off_peak_price_is_a_version_of_its_own() -> None:
    listed = {"input": "2", "cached_input": "0.1", "output": "8", "off_peak": {"input": "1", "output": "5"}}
    tariff, versions = build(listed, schedule=SCHEDULE)
    assert [version.source["period"] for version in versions] == ["peak", "off_peak"]
    assert versions[1].source["output"] == "5"
    assert len({version.price.price_id for version in versions}) == 2
    assert tariff.off_peak is not None
    assert tariff.off_peak.tiers[0].rates == Rates(1_000_000, 50_000, 1_000_000, 5_000_000, 5_000_000)


def test_the_sale_price_is_marked_up_and_the_cost_is_not() -> None:
    tariff, (version,) = build({"input": "9", "output": "27"}, fx="0.1389", markup="1.25")
    assert tariff.peak.tiers[0].rates.input == 1_562_625  # 9 × 0.1389 × 1.25
    assert tariff.peak.cost_tiers[0].rates.input == 9_000_000
    assert tariff.peak.cost_currency == "CNY"
    assert version.source == {
        "input": "9",
        "output": "27",
        "source": "a page",
        "currency": "CNY",
        "fx": "0.1389",
        "markup": "1.25",
        "period": "always",
    }


DECIMAL = st.decimals(0, 1000, places=6).map(lambda value: f"{value:f}")


@given(DECIMAL, DECIMAL, DECIMAL, st.sampled_from(["1", "0.1389", "7.123456789012", "0.000001"]))
def test_a_rate_is_rounded_up_once(price: str, cached: str, output: str, factor: str) -> None:
    tariff, _ = build({"input": price, "cached_input": cached, "output": output}, fx=factor, markup="1.1")
    rates = tariff.peak.tiers[0].rates
    for text, rate in ((price, rates.input), (cached, rates.cached), (output, rates.output)):
        assert rate == math.ceil(Fraction(text) * Fraction(factor) * Fraction("1.1") * 10**6)


@pytest.mark.parametrize(
    "changed",
    [
        {"input": "2.1"},
        {"thinking": "9"},
        {"tiers": [{"input_max": 5, "input": "2"}, {"input": "2"}]},
        {"fx": "0.2"},
        {"markup": "1.1"},
    ],
)
def test_the_id_is_that_of_the_content(changed: dict[str, Any]) -> None:
    base: dict[str, Any] = {"input": "2", "output": "6"}
    factors = {key: changed.pop(key) for key in ("fx", "markup") if key in changed}
    (_, (first,)), (_, (again,)) = build(base), build(dict(reversed(base.items())))
    _, (other,) = build({**base, **changed}, **factors)
    assert first.price.price_id == again.price.price_id
    assert len(first.price.price_id) == 16
    assert first.price.price_id != other.price.price_id


@pytest.mark.parametrize(
    ("listed", "what"),
    [
        ({"input": "1"}, "at least input and output"),
        ({"input": "1", "output": "x"}, "decimal"),
        ({"input": "1", "output": "-1"}, "not negative"),
        ({"input": "1", "output": "1", "tiers": [{"input_max": 5, "input": "1"}]}, "last tier"),
        ({"input": "1", "output": "1", "tiers": [{"input": "1"}, {"input": "1"}]}, "rising order"),
        (
            {"input": "1", "output": "1", "tiers": [{"input_max": n, "input": "1"} for n in (9, 5)] + [{"input": "1"}]},
            "rising order",
        ),
        (
            {"input": "0", "output": "1", "tiers": [{"input_max": 5, "input": "0"}, {"input": "1"}]},
            "all kinds of the base",
        ),
        ({"input": "1", "output": "1000000.000001"}, "at most 1000000"),
    ],
)
def test_a_list_that_is_no_complete_price_is_refused(listed: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        build(listed)


def test_the_kinds_are_in_the_order_of_the_rates() -> None:
    listed = {kind: str(n) for n, kind in enumerate(KINDS, 1)}
    assert build(listed)[0].peak.tiers[0].rates == Rates(*[n * 10**6 for n in range(1, 6)])


def tier_ends(*ends: tuple[int | None, int | None]) -> list[dict[str, Any]]:
    return [
        {"input": "1", "output": "1"} | {k: v for k, v in (("input_max", i), ("output_max", o)) if v is not None}
        for i, o in ends
    ]


@pytest.mark.parametrize(
    "ends",
    [
        [(32, 2), (32, None), (128, None), (None, None)],
        [(32, 2), (32, 9), (128, 2), (128, None), (None, 2), (None, None)],
        [(None, 2), (None, None)],
    ],
)
def test_tiers_by_output_stand_within_those_by_input(ends: list[tuple[int | None, int | None]]) -> None:
    tariff, _ = build({"input": "1", "output": "1", "tiers": tier_ends(*ends)})
    assert [(tier.input_max, tier.output_max) for tier in tariff.peak.tiers] == ends


@pytest.mark.parametrize(
    "ends",
    [
        [(32, None), (32, 2), (None, None)],  # the second would never be looked at
        [(32, 2), (32, 2), (None, None)],
        [(128, 2), (32, None), (None, None)],
        [(32, None), (None, 2)],  # nothing prices a long output
    ],
)
def test_tiers_that_hide_or_miss_one_are_refused(ends: list[tuple[int | None, int | None]]) -> None:
    with pytest.raises(ValueError, match=r"last tier|rising order"):
        build({"input": "1", "output": "1", "tiers": tier_ends(*ends)})


def test_each_tier_fills_its_own_gaps() -> None:
    listed = {
        **{"input": "0.8", "cached_input": "0.16", "cache_write": "1", "output": "2", "thinking": "4"},
        "tiers": [
            {"input_max": 32, "output_max": 2, "input": "0.8", "output": "2"},
            {"input_max": 32, "input": "0.8", "output": "8", "thinking": "8"},
            {"input": "2.4", "cached_input": "0.16"},
        ],
    }
    short, long, rest = build(listed)[0].peak.tiers
    assert short.rates == Rates(800_000, 160_000, 1_000_000, 2_000_000, 4_000_000)
    assert long.rates == Rates(800_000, 160_000, 1_000_000, 8_000_000, 8_000_000)
    assert rest.rates == Rates(2_400_000, 160_000, 3_000_000, 6_000_000, 12_000_000)
