"""Every published price: whole, sourced, and charged to the nano-unit at every edge of its tiers."""

import datetime
import math
import os
import random
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nexus_proxy.catalogue.dates import stale_days
from nexus_proxy.core.money.pricelist import KINDS, exact
from nexus_proxy.core.money.prices import Tier, amount_nano, bound_nano, itemize, pick_tier
from nexus_proxy.core.wire.usage import Usage
from tests.catalogue.published import Band, Published, every_price, table

LONG = os.environ.get("NEXUS_TEST_LONG", "") not in ("", "0")
ROWS: list[dict[str, Any]] = table("prices.json")
PRICES = every_price()
RATE_NAMES = ("input", "cached", "cache_write", "output", "thinking")


def named(row: dict[str, Any]) -> str:
    return f"{row['provider']} {row['currency']} {row['upstream']}"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_a_row_is_whole_and_sourced(row: dict[str, Any]) -> None:
    known = {"provider", "currency", "upstream", *KINDS, "tiers", "off_peak", "withheld"}
    assert row.keys() <= known | {"source", "source_date", "confidence", "notes"}
    assert row["currency"] in ("USD", "CNY")
    assert len(row["source"]) > 10
    assert 0 <= stale_days(row["source_date"], datetime.date(2027, 1, 1)) < 1000
    assert row["confidence"] in ("high", "medium", "low")
    parts = [row, *row.get("tiers", ()), *([row["off_peak"]] if "off_peak" in row else [])]
    for part in parts:
        decimals = [part[kind] for kind in KINDS if kind in part]
        assert all(type(text) is str and exact(text) == exact(f"{Decimal(text):f}") for text in decimals)
    if "withheld" in row:
        assert len(row["withheld"]) > 10
        return
    assert all({"input", "output"} <= part.keys() for part in parts)
    bounds = [(tier.get("input_max", math.inf), tier.get("output_max", math.inf)) for tier in row.get("tiers", ())]
    assert bounds == sorted(set(bounds))
    if bounds:
        assert bounds[-1] == (math.inf, math.inf)
        first = row["tiers"][0]
        assert {kind: first[kind] for kind in KINDS if kind in first} == {k: row[k] for k in KINDS if k in first}
        assert all(type(end) is int and end > 0 for pair in bounds for end in pair if end != math.inf)


def test_the_tables_hold_the_whole_collection() -> None:
    keys = [(row["provider"], row["currency"], row["upstream"]) for row in ROWS]
    assert len(keys) == len(set(keys)) == 191
    withheld = Counter(row["provider"] for row in ROWS if "withheld" in row)
    assert withheld == {"siliconflow-cn": 16, "spark": 5}
    assert not any("own conversion" in row.get("notes", "") for row in ROWS if "withheld" not in row)
    assert [row["upstream"] for row in ROWS if "input" not in row] == [
        *("generalv3", "pro-128k", "generalv3.5", "max-32k", "4.0Ultra")
    ]
    free = {row["upstream"] for row in ROWS if row.get("input") == "0" and "withheld" not in row}
    assert free == {"glm-4.7-flash", "glm-4.5-flash", "hunyuan-lite", "lite"}


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.name)
def test_rates_are_in_the_order_that_the_bounds_stand_on(price: Published) -> None:
    for tiers in (price.price.tiers, price.price.cost_tiers):
        for tier in tiers:
            assert tier.rates.cached <= tier.rates.input
            assert tier.rates.output <= tier.rates.thinking
        for below, above in pairwise(tiers):
            assert all(getattr(below.rates, name) <= getattr(above.rates, name) for name in RATE_NAMES)


def test_only_two_models_write_the_cache_for_less_than_they_read_fresh_input() -> None:
    odd = {p.name for p in PRICES for tier in p.price.cost_tiers if tier.rates.cache_write < tier.rates.input}
    assert odd == {"minimax-intl USD MiniMax-M2.7-highspeed", "minimax-intl USD MiniMax-M2.5-highspeed"}


# --- edges --------------------------------------------------------------------------------------------------------


def around(edges: list[int], *others: int) -> list[int]:
    return sorted({count for edge in edges for count in (edge - 1, edge, edge + 1)} | set(others))


def at_the_edges(price: Published) -> Iterator[Usage]:
    inputs, outputs = price.edges()
    for prompt, completion in product(around(inputs, 1, 2_000_000), around(outputs, 0, 1, 300_000)):
        for cached, written in ((0, 0), (prompt // 3, 0), (prompt // 3, prompt // 5), (prompt, 0), (0, prompt)):
            for reasoning in {0, min(1, completion), completion}:
                yield Usage(prompt, completion, cached, written, reasoning)


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.name)
def test_one_token_on_each_side_of_every_tier(price: Published) -> None:
    charge_tiers, cost_tiers = price.price.tiers, price.price.cost_tiers
    for usage in at_the_edges(price):
        assert amount_nano(charge_tiers, usage) == price.charge_nano(usage), usage
        assert amount_nano(cost_tiers, usage) == price.cost_nano(usage), usage
        chosen, band = pick_tier(charge_tiers, usage.prompt, usage.completion), price.band(usage)
        assert ends(chosen) == ends(band)
        shown = itemize(charge_tiers, usage)
        assert (shown.nano, charge_tiers[shown.tier_index]) == (price.charge_nano(usage), chosen)


def test_the_tiers_by_output_length_are_there() -> None:
    by_output = {price.name: price.edges() for price in PRICES if price.edges()[1]}
    assert by_output == {
        "doubao CNY doubao-seed-1-8-251228": ([32_000, 128_000], [200]),
        "doubao CNY doubao-seed-1-6-251015": ([32_000, 128_000], [200]),
        "zhipu-cn CNY glm-4.7": ([31_999], [199]),
        "zhipu-cn CNY glm-4.5-air": ([31_999], [199]),
    }


@pytest.mark.parametrize(
    ("name", "prompt", "completion", "yuan_per_million"),
    [
        ("doubao CNY doubao-seed-1-8-251228", 32_000, 200, ("0.8", "2")),
        ("doubao CNY doubao-seed-1-8-251228", 32_000, 201, ("0.8", "8")),
        ("doubao CNY doubao-seed-1-8-251228", 32_001, 200, ("1.2", "16")),
        ("doubao CNY doubao-seed-1-8-251228", 128_000, 1, ("1.2", "16")),
        ("doubao CNY doubao-seed-1-8-251228", 128_001, 1, ("2.4", "24")),
        ("zhipu-cn CNY glm-4.7", 31_999, 199, ("2", "8")),
        ("zhipu-cn CNY glm-4.7", 31_999, 200, ("3", "14")),
        ("zhipu-cn CNY glm-4.7", 32_000, 1, ("4", "16")),
        ("zhipu-cn CNY glm-4.5-air", 31_999, 199, ("0.8", "2")),
        ("zhipu-cn CNY glm-4.5-air", 31_999, 200, ("0.8", "6")),
        ("zhipu-cn CNY glm-4.5-air", 32_000, 199, ("1.2", "8")),
        ("minimax-intl USD MiniMax-M3", 512_000, 9, ("0.3", "1.2")),
        ("minimax-intl USD MiniMax-M3", 512_001, 9, ("0.6", "2.4")),
        ("stepfun-cn CNY step-3", 4_000, 9, ("1.5", "4")),
        ("stepfun-cn CNY step-3", 4_001, 9, ("4", "8")),
        ("qwen-intl USD qwen3-coder-plus", 256_001, 9, ("6", "60")),
    ],
)
def test_a_tier_reprices_the_whole_request(
    name: str, prompt: int, completion: int, yuan_per_million: tuple[str, str]
) -> None:
    (price,) = [price for price in PRICES if price.name == name]
    of_input, of_output = (Decimal(text) for text in yuan_per_million)
    nano = (prompt * of_input + completion * of_output) * 1000
    assert amount_nano(price.price.cost_tiers, Usage(prompt, completion)) == math.ceil(nano)


# --- what a hold promises -----------------------------------------------------------------------------------------


def some_usages(price: Published, chance: random.Random, count: int) -> Iterator[Usage]:
    """Counts of every length, one in two of them beside an edge."""
    inputs, outputs = price.edges()
    near_inputs, near_outputs = around(inputs, 0, 1), around(outputs, 0, 1)
    for _ in range(count):
        prompt = chance.choice(near_inputs) if chance.random() < 0.5 else int(1.4e6 ** chance.random())
        completion = chance.choice(near_outputs) if chance.random() < 0.5 else int(4e5 ** chance.random())
        cached = chance.randint(0, prompt) if chance.random() < 0.6 else 0
        written = chance.randint(0, prompt - cached) if chance.random() < 0.3 else 0
        reasoning = chance.randint(0, completion) if chance.random() < 0.5 else 0
        yield Usage(prompt, completion, cached, written, reasoning)


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.name)
def test_e19_no_hold_is_below_a_charge_within_its_bounds(price: Published) -> None:
    chance = random.Random(price.name)
    for usage in some_usages(price, chance, 100):
        tiers = price.price.tiers
        for spare_input, spare_output in ((0, 0), (1, 0), (0, 1), (chance.randint(0, 10**5), chance.randint(0, 10**4))):
            assert amount_nano(tiers, usage) <= bound_nano(
                tiers, usage.prompt + spare_input, usage.completion + spare_output
            )


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.name)
def test_a_hold_is_no_dearer_than_the_dearest_reachable_rates(price: Published) -> None:
    """It bounds from above, but not by a tier that nothing within the bounds reaches."""
    inputs, outputs = price.edges()
    for input_bound, output_bound in product(around(inputs, 1), around(outputs, 1)):
        reached = {
            ends(price.band(Usage(prompt, completion)))
            for prompt in around(inputs, 0, input_bound)
            for completion in around(outputs, 0, output_bound)
            if prompt <= input_bound and completion <= output_bound
        }
        rates = [tier.rates for tier in price.price.tiers if ends(tier) in reached]
        dearest_input = max(max(r.input, r.cached, r.cache_write) for r in rates)
        dearest_output = max(max(r.output, r.thinking) for r in rates)
        pico = input_bound * dearest_input + output_bound * dearest_output
        assert bound_nano(price.price.tiers, input_bound, output_bound) == -(-pico // 1000)


def ends(tier: Tier | Band) -> tuple[float, float]:
    return tier.input_max or math.inf, tier.output_max or math.inf


# --- how a charge moves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.name)
def test_a_charge_rises_with_each_kind_of_token_across_every_tier(price: Published) -> None:
    chance = random.Random(price.name)
    tiers = price.price.tiers
    for usage in some_usages(price, chance, 60):
        before = amount_nano(tiers, usage)
        prompt, completion, cached, written, thought = (
            *(usage.prompt, usage.completion, usage.cached, usage.cache_write),
            usage.reasoning,
        )
        for more in (1, 2, chance.randint(3, 200_000)):
            dearer = [
                Usage(prompt + more, completion, cached, written, thought),
                Usage(prompt + more, completion, cached + more, written, thought),
                Usage(prompt + more, completion, cached, written + more, thought),
                Usage(prompt, completion + more, cached, written, thought),
                Usage(prompt, completion + more, cached, written, thought + more),
                Usage(prompt, completion, cached, written, min(completion, thought + more)),
            ]
            assert all(before <= amount_nano(tiers, one) for one in dearer), usage


@pytest.mark.parametrize("price", PRICES, ids=lambda price: price.name)
def test_a_charge_never_rises_when_a_fresh_token_is_a_cached_one(price: Published) -> None:
    chance = random.Random(price.name)
    for usage in some_usages(price, chance, 60):
        fresh = usage.prompt - usage.cached - usage.cache_write
        turned = chance.randint(0, fresh)
        hit = Usage(usage.prompt, usage.completion, usage.cached + turned, usage.cache_write, usage.reasoning)
        assert amount_nano(price.price.tiers, hit) <= amount_nano(price.price.tiers, usage)


@settings(max_examples=300)
@given(st.sampled_from(PRICES), st.data())
def test_e7_every_charge_is_the_published_price_rounded_up_once(price: Published, data: st.DataObject) -> None:
    inputs, outputs = price.edges()
    prompt = data.draw(st.sampled_from(around(inputs, 0)) | st.integers(0, 3_000_000))
    completion = data.draw(st.sampled_from(around(outputs, 0)) | st.integers(0, 500_000))
    cached = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - cached))
    usage = Usage(prompt, completion, cached, written, data.draw(st.integers(0, completion)))
    charge = amount_nano(price.price.tiers, usage)
    assert charge == price.charge_nano(usage) == itemize(price.price.tiers, usage).nano
    assert 0 <= charge <= bound_nano(price.price.tiers, prompt, completion)


def test_e7_a_million_random_requests_sum_to_the_recomputed_sum() -> None:
    """Twenty thousand, unless NEXUS_TEST_LONG asks for the million."""
    count = 1_000_000 if LONG else 20_000
    chance = random.Random(20261122)
    charged = cost = recomputed_charge = recomputed_cost = done = 0
    while done < count:
        price = chance.choice(PRICES)
        for usage in some_usages(price, chance, 20):
            charged += amount_nano(price.price.tiers, usage)
            cost += amount_nano(price.price.cost_tiers, usage)
            recomputed_charge += price.charge_nano(usage)
            recomputed_cost += price.cost_nano(usage)
            done += 1
    assert done == count
    assert (charged, cost) == (recomputed_charge, recomputed_cost)
    assert charged > 10**9
