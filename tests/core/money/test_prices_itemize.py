"""The arithmetic of a charge, shown: its lines are the charge."""

import pytest
from hypothesis import given

from nexus_proxy.core.money.prices import Line, Rates, Tier, amount_nano, itemize, pick_tier
from nexus_proxy.core.wire.usage import Usage
from tests.core.money.test_prices import tier_tables, usages

CHEAP = Tier(100, 50, Rates(1_000_001, 200_000, 1_250_000, 4_000_000, 6_000_000))
LONG = Tier(100, None, Rates(1_000_001, 200_000, 1_250_000, 8_000_000, 9_000_000))
DEAR = Tier(None, None, Rates(2_000_000, 400_000, 2_500_000, 16_000_000, 18_000_000))
TIERS = (CHEAP, LONG, DEAR)


@given(tier_tables(), usages())
def test_the_lines_sum_to_what_is_charged(tiers: tuple[Tier, ...], usage: Usage) -> None:
    shown = itemize(tiers, usage)
    assert shown.nano == amount_nano(tiers, usage)
    assert shown.pico == sum(line.pico for line in shown.lines)
    assert (shown.nano - 1) * 1000 < shown.pico <= shown.nano * 1000
    assert all(line.pico == line.tokens * line.rate and line.tokens for line in shown.lines)
    assert sum(line.tokens for line in shown.lines) == usage.prompt + usage.completion
    assert tiers[shown.tier_index] is shown.tier is pick_tier(tiers, usage.prompt, usage.completion)


def test_a_charge_is_shown_kind_by_kind() -> None:
    shown = itemize(TIERS, Usage(100, 50, cached=40, cache_write=10))
    assert shown.lines == (
        Line("input", 50, 1_000_001, 50_000_050),
        Line("cached", 40, 200_000, 8_000_000),
        Line("cache_write", 10, 1_250_000, 12_500_000),
        Line("output", 50, 4_000_000, 200_000_000),
    )
    assert (shown.tier_index, shown.pico, shown.nano) == (0, 270_500_050, 270_501)


@pytest.mark.parametrize(
    ("usage", "tier_index", "kinds"),
    [
        (Usage(100, 50), 0, ["input", "output"]),
        (Usage(100, 51), 1, ["input", "output"]),
        (Usage(101, 50), 2, ["input", "output"]),
        (Usage(100, 50, reasoning=1), 0, ["input", "thinking"]),
        (Usage(100, 50, cached=100), 0, ["cached", "output"]),
        (Usage(100, 0, cache_write=100), 0, ["cache_write"]),
        (Usage(0, 0), 0, []),
    ],
)
def test_the_tier_and_the_kinds_are_those_that_are_charged(usage: Usage, tier_index: int, kinds: list[str]) -> None:
    shown = itemize(TIERS, usage)
    assert (shown.tier_index, [line.kind for line in shown.lines]) == (tier_index, kinds)
    assert [line.rate for line in shown.lines] == [getattr(TIERS[tier_index].rates, kind) for kind in kinds]


def test_one_reasoning_token_never_lowers_a_charge_at_a_dearer_thinking_rate() -> None:
    for completion in (1, 50, 51, 1000):
        plain = itemize(TIERS, Usage(10, completion))
        thought = itemize(TIERS, Usage(10, completion, reasoning=1))
        assert thought.nano > plain.nano
        assert itemize(TIERS, Usage(10, completion, reasoning=completion)).nano == thought.nano
