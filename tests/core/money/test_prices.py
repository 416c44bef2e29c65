"""What tokens cost, against exact fractions; and that a hold bounds every charge within its bounds."""

import math
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nexus_proxy.core.money.pricelist import RATE_MAX, TOKENS_MAX
from nexus_proxy.core.money.prices import Price, Rates, Schedule, Tariff, Tier, amount_nano, bound_nano, pick_tier
from nexus_proxy.core.wire.usage import Usage

RATE = st.integers(0, 10**8) | st.integers(0, 3) | st.just(RATE_MAX)
RATES = st.builds(Rates, RATE, RATE, RATE, RATE, RATE)


@st.composite
def tier_tables(draw: st.DrawFn) -> tuple[Tier, ...]:
    inputs = sorted(draw(st.sets(st.integers(1, 60), max_size=3)))
    tiers = []
    for input_max in [*inputs, None]:
        if draw(st.booleans()):
            tiers.append(Tier(input_max, draw(st.integers(1, 30)), draw(RATES)))
        tiers.append(Tier(input_max, None, draw(RATES)))
    return tuple(tiers)


@st.composite
def usages(draw: st.DrawFn, tokens_max: int = 80) -> Usage:
    prompt, completion = draw(st.integers(0, tokens_max)), draw(st.integers(0, tokens_max))
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    return Usage(prompt, completion, cached, written, draw(st.integers(0, completion)))


def exact(tiers: tuple[Tier, ...], usage: Usage) -> Fraction:
    """Currency units, written down again from design: no tier look-up, no integer trick."""
    fitting = [
        tier.rates
        for tier in tiers
        if usage.prompt <= (tier.input_max or math.inf) and usage.completion <= (tier.output_max or math.inf)
    ]
    rates = fitting[0]
    per_token = Fraction(1, 10**6) / 10**6  # a micro-unit per million tokens
    return per_token * (
        (usage.prompt - usage.cached - usage.cache_write) * rates.input
        + usage.cached * rates.cached
        + usage.cache_write * rates.cache_write
        + usage.completion * (rates.thinking if usage.reasoning else rates.output)
    )


@given(tier_tables(), usages())
def test_e7_an_amount_is_the_exact_price_rounded_up_once(tiers: tuple[Tier, ...], usage: Usage) -> None:
    assert amount_nano(tiers, usage) == math.ceil(exact(tiers, usage) * 10**9)


@given(tier_tables(), st.lists(usages(), min_size=1, max_size=30))
def test_e7_the_sum_of_many_requests_is_the_recomputed_sum(tiers: tuple[Tier, ...], many: list[Usage]) -> None:
    charged = sum(amount_nano(tiers, usage) for usage in many)
    assert charged == sum(math.ceil(exact(tiers, usage) * 10**9) for usage in many)
    assert 0 <= charged - sum(exact(tiers, usage) for usage in many) * 10**9 < len(many)


def test_e7_a_million_requests_lose_nothing() -> None:
    tiers = (Tier(None, None, Rates(1_320_001, 44_000, 1_320_001, 3_960_000, 3_960_000)),)
    one = amount_nano(tiers, Usage(7, 3))
    assert one == 21_121  # 7 × 1,320.001 + 3 × 3,960 = 21,120.007 nano-units
    assert sum(amount_nano(tiers, Usage(7, 3)) for _ in range(1000)) * 1000 == one * 10**6


@given(tier_tables(), usages(), st.integers(0, 40), st.integers(0, 40))
def test_e19_no_usage_within_the_bounds_costs_more_than_the_hold(
    tiers: tuple[Tier, ...], usage: Usage, spare_input: int, spare_output: int
) -> None:
    hold = bound_nano(tiers, usage.prompt + spare_input, usage.completion + spare_output)
    assert amount_nano(tiers, usage) <= hold


def test_a_hold_looks_only_at_tiers_that_the_bounds_reach() -> None:
    cheap, dear = Rates(10, 1, 20, 30, 40), Rates(1000, 1000, 1000, 1000, 1000)
    tiers = (Tier(100, None, cheap), Tier(None, None, dear))
    assert bound_nano(tiers, 100, 100) == math.ceil((100 * 20 + 100 * 40) / 1000)
    assert bound_nano(tiers, 101, 100) == math.ceil(201 * 1000 / 1000)
    short = (Tier(100, 200, cheap), Tier(None, None, dear))
    assert bound_nano(short, 100, 200) == math.ceil((100 * 20 + 200 * 40) / 1000)
    assert bound_nano(short, 100, 201) == 301


@given(RATES, usages())
def test_each_kind_of_token_raises_the_charge_or_leaves_it(rates: Rates, usage: Usage) -> None:
    tiers = (Tier(None, None, rates),)
    amount = amount_nano(tiers, usage)
    prompt, completion, cached, written = usage.prompt, usage.completion, usage.cached, usage.cache_write
    more = [
        Usage(prompt + 1, completion, cached, written, usage.reasoning),
        Usage(prompt + 1, completion, cached + 1, written, usage.reasoning),
        Usage(prompt + 1, completion, cached, written + 1, usage.reasoning),
        Usage(prompt, completion + 1, cached, written, usage.reasoning),
    ]
    assert all(amount <= amount_nano(tiers, one) <= amount + math.ceil(max_rate(rates) / 1000) for one in more)


def max_rate(rates: Rates) -> int:
    return max(rates.input, rates.cached, rates.cache_write, rates.output, rates.thinking)


@given(RATES, usages())
def test_a_fresh_token_turned_cached_never_raises_the_charge(rates: Rates, usage: Usage) -> None:
    assume(rates.cached <= rates.input and usage.prompt > usage.cached + usage.cache_write)
    tiers = (Tier(None, None, rates),)
    hit = Usage(usage.prompt, usage.completion, usage.cached + 1, usage.cache_write, usage.reasoning)
    assert amount_nano(tiers, hit) <= amount_nano(tiers, usage)


@st.composite
def rising_tables(draw: st.DrawFn) -> tuple[Tier, ...]:
    """Tables as providers publish them: each tier as dear as the one below it in every kind, or dearer."""
    rates = Rates(0, 0, 0, 0, 0)
    tiers = []
    for tier in draw(tier_tables()):
        more = draw(RATES)
        cached = min(rates.cached + more.cached, rates.input + more.input)
        output = rates.output + more.output
        thinking = max(rates.thinking, output) + more.thinking
        rates = Rates(rates.input + more.input, cached, rates.cache_write + more.cache_write, output, thinking)
        tiers.append(Tier(tier.input_max, tier.output_max, rates))
    return tuple(tiers)


@given(rising_tables(), usages(), st.integers(1, 60))
def test_each_kind_of_token_raises_the_charge_across_rising_tiers(
    tiers: tuple[Tier, ...], usage: Usage, more: int
) -> None:
    amount = amount_nano(tiers, usage)
    prompt, completion, cached, written, thought = (
        *(usage.prompt, usage.completion, usage.cached, usage.cache_write),
        usage.reasoning,
    )
    dearer = [
        Usage(prompt + more, completion, cached, written, thought),
        Usage(prompt + more, completion, cached + more, written, thought),
        Usage(prompt + more, completion, cached, written + more, thought),
        Usage(prompt, completion + more, cached, written, thought),
        Usage(prompt, completion + more, cached, written, thought + more),
        Usage(prompt, completion, cached, written, min(completion, thought + more)),
    ]
    assert all(amount <= amount_nano(tiers, one) for one in dearer)
    fresh = prompt - cached - written
    assert amount_nano(tiers, Usage(prompt, completion, cached + fresh, written, thought)) <= amount


def test_one_reasoning_token_moves_the_whole_output_to_the_thinking_rate() -> None:
    tiers = (Tier(None, None, Rates(0, 0, 0, 1_200_000, 4_000_000)),)
    assert amount_nano(tiers, Usage(0, 1000, reasoning=0)) == 1_200_000
    assert amount_nano(tiers, Usage(0, 1000, reasoning=1)) == 4_000_000


@pytest.mark.parametrize(("prompt", "index"), [(0, 0), (31_999, 0), (32_000, 0), (32_001, 1), (128_001, 2), (10**9, 2)])
def test_a_tier_ends_with_its_bound_and_prices_the_whole_request(prompt: int, index: int) -> None:
    tiers = tuple(Tier(bound, None, Rates(*[10**6 * n] * 5)) for n, bound in ((1, 32_000), (2, 128_000), (3, None)))
    assert pick_tier(tiers, prompt, 0) is tiers[index]
    assert amount_nano(tiers, Usage(prompt, 0)) == prompt * 1000 * (index + 1)


def test_e15_a_price_of_zero_charges_nothing() -> None:
    tiers = (Tier(None, None, Rates(0, 0, 0, 0, 0)),)
    assert amount_nano(tiers, Usage(10**6, 10**6)) == bound_nano(tiers, 10**6, 10**6) == 0


def test_e16_the_largest_hold_that_a_configuration_allows_fits_the_ledger() -> None:
    tiers = (Tier(None, None, Rates(*[RATE_MAX] * 5)),)
    assert bound_nano(tiers, TOKENS_MAX, 128 * 2 * TOKENS_MAX) < 2**62


# --- time of day --------------------------------------------------------------------------------------------------


def days(*texts: str) -> frozenset[int]:
    return frozenset((date.fromisoformat(text) - date(1970, 1, 1)).days for text in texts)


BEIJING = Schedule(
    8 * 3600, ((9 * 3600, 12 * 3600), (14 * 3600, 18 * 3600)), days("2026-01-01", "2026-01-02"), days("2026-01-04")
)


def is_peak(text: str, seconds: float = 0) -> bool:
    at = datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(seconds=seconds)
    return BEIJING.is_peak(round(at.timestamp() * 1000))


@pytest.mark.parametrize("edge", ["01:00", "06:00"])
def test_a_peak_window_begins_with_its_first_second(edge: str) -> None:
    day = f"2026-11-18T{edge}"  # a Wednesday
    assert [is_peak(day, s) for s in (-1, -0.001, 0, 1)] == [False, False, True, True]


@pytest.mark.parametrize("edge", ["04:00", "10:00"])
def test_a_peak_window_ends_before_its_last_second(edge: str) -> None:
    day = f"2026-11-18T{edge}"
    assert [is_peak(day, s) for s in (-1, -0.001, 0, 1)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("day", "peak"),
    [
        ("2026-11-20", True),  # Friday
        ("2026-11-21", False),  # Saturday
        ("2026-11-22", False),  # Sunday
        ("2026-11-23", True),  # Monday
        ("2026-01-01", False),  # a holiday, Thursday
        ("2026-01-03", False),  # a Saturday of its own
        ("2026-01-04", True),  # a Sunday that is worked
        ("2025-12-31", True),  # before the calendar: a Wednesday
        ("2027-02-08", True),  # beyond it: a Monday
        ("2027-02-06", False),  # and a Saturday
    ],
)
def test_the_calendar_decides_which_days_have_a_peak(day: str, peak: bool) -> None:
    assert is_peak(f"{day}T02:30") is peak
    assert not is_peak(f"{day}T05:00")


def test_the_day_is_the_local_one() -> None:
    late = Schedule(8 * 3600, ((0, 3600),), frozenset(), frozenset())
    sunday_16_utc = int(datetime(2026, 11, 22, 16, tzinfo=UTC).timestamp()) * 1000  # Monday 00:00 in Beijing
    assert late.is_peak(sunday_16_utc)
    assert not late.is_peak(sunday_16_utc - 1)
    assert not late.is_peak(sunday_16_utc + 5 * 86_400_000)


def test_a_tariff_is_dear_unless_its_schedule_says_otherwise() -> None:
    tiers = (Tier(None, None, Rates(1, 1, 1, 1, 1)),)
    dear, cheap = Price("dear", tiers, tiers, "USD"), Price("cheap", tiers, tiers, "USD")
    night = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp()) * 1000
    assert Tariff(dear).price_at(night) is dear
    assert Tariff(dear, cheap).price_at(night) is dear
    assert Tariff(dear, cheap, BEIJING).price_at(night) is cheap
    assert Tariff(dear, cheap, BEIJING).price_at(night + 86_400_000 + 2 * 3_600_000) is dear
    assert Tariff(dear, cheap, BEIJING).prices() == (dear, cheap)
    assert Tariff(dear).prices() == (dear,)
