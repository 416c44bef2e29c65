"""What each way to end is charged."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.money.prices import Price, Rates, Tier, amount_nano
from nexus_proxy.core.money.settlement import Ending, EndState, UsageSource, Verdict, decide, estimate
from nexus_proxy.core.wire.usage import Usage

SALE = (Tier(None, None, Rates(2_000_001, 500_000, 2_500_000, 8_000_000, 8_000_000)),)
COST = (Tier(None, None, Rates(1_000_000, 250_000, 1_250_000, 4_000_000, 4_000_000)),)
PRICE = Price("p1", SALE, COST, "CNY")
USAGE = Usage(1000, 100, cached=400)
CHARGE = 600 * 2_000 + 1 + 400 * 500 + 100 * 8_000  # nano: 600 tokens at 2,000.001, rounded up once
COSTS = 600 * 1_000 + 400 * 250 + 100 * 4_000


def ending(
    end_state: EndState, *, usage: Usage | None = None, complete: bool = True, began: bool = True, **said: bool
) -> Ending:
    return Ending(end_state, began, complete, usage, prompt_estimate=50, output_bytes=9, **said)


def parts(verdict: Verdict) -> tuple[EndState, UsageSource, Usage | None, int, int]:
    return verdict.end_state, verdict.usage_source, verdict.usage, verdict.charge_nano, verdict.cost_nano


@pytest.mark.parametrize(
    ("end_state", "complete", "source"),
    [
        (EndState.COMPLETE, True, UsageSource.REPORTED),
        (EndState.CLIENT_GONE, True, UsageSource.DRAINED),
        (EndState.CLIENT_GONE, False, UsageSource.CUMULATIVE),
        (EndState.UPSTREAM_CUT, False, UsageSource.CUMULATIVE),
        (EndState.TIMEOUT, False, UsageSource.CUMULATIVE),
    ],
)
def test_reported_usage_is_charged_to_the_nano_even_above_the_hold(
    end_state: EndState, complete: bool, source: UsageSource
) -> None:
    found = decide(ending(end_state, usage=USAGE, complete=complete), PRICE, hold_nano=1)
    assert parts(found) == (end_state, source, USAGE, CHARGE, COSTS)


@pytest.mark.parametrize(
    ("end_state", "source"),
    [(EndState.UPSTREAM_CUT, UsageSource.REPORTED), (EndState.CLIENT_GONE, UsageSource.DRAINED)],
)
def test_a_whole_document_without_a_finish_reason_is_charged_as_reported(
    end_state: EndState, source: UsageSource
) -> None:
    whole = ending(end_state, usage=USAGE, complete=False, whole=True)
    assert parts(decide(whole, PRICE, hold_nano=1)) == (end_state, source, USAGE, CHARGE, COSTS)


def test_an_estimate_of_an_answer_that_thought_is_priced_as_thinking() -> None:
    tiers = (replace(SALE[0], rates=replace(SALE[0].rates, thinking=9_000_000)),)
    cut = ending(EndState.UPSTREAM_CUT, complete=False, thought=True)
    found = decide(cut, replace(PRICE, tiers=tiers), hold_nano=10**9)
    assert found.usage == Usage(50, 3, reasoning=1)
    assert found.charge_nano == 50 * 2_000 + 1 + 3 * 9_000
    assert estimate(50, 0, thought=True) == Usage(50, 0)


@pytest.mark.parametrize("end_state", list(EndState))
def test_b17_b24_an_answer_without_usage_is_estimated(end_state: EndState) -> None:
    found = decide(ending(end_state, complete=end_state is EndState.COMPLETE), PRICE, hold_nano=10**9)
    assert found.usage == Usage(50, 3)
    assert found.usage_source is UsageSource.ESTIMATED
    assert found.charge_nano == 50 * 2_000 + 1 + 3 * 8_000
    assert found.cost_nano == 50 * 1_000 + 3 * 4_000


def test_b28_an_estimate_is_capped_at_the_hold() -> None:
    assert decide(ending(EndState.UPSTREAM_CUT, complete=False), PRICE, hold_nano=77).charge_nano == 77


@pytest.mark.parametrize("end_state", list(EndState))
@pytest.mark.parametrize("complete", [True, False])
def test_b14_what_never_began_is_void(end_state: EndState, complete: bool) -> None:
    found = decide(ending(end_state, complete=complete, began=False), PRICE, hold_nano=10**9)
    assert parts(found) == (end_state, UsageSource.NONE, None, 0, 0)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_an_estimate_counts_four_bytes_a_token_rounded_up(prompt: int, size: int) -> None:
    usage = estimate(prompt, size)
    assert usage.prompt == prompt
    assert 4 * (usage.completion - 1) < size <= 4 * usage.completion or size == usage.completion == 0
    assert amount_nano(SALE, usage) >= 0
