"""A charge that is computed beforehand: the same as the one that is charged, with arithmetic that adds up."""

import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from nexus_proxy.config import Config, load
from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.core.money.prices import amount_nano
from nexus_proxy.core.wire.usage import Usage
from tests.cli.terminal import Verbs, tiered

TOML = tiered(
    markup="1.1",
    also="qwen-intl",
    more="""
upstream = "theirs"
limit_covers_thinking = false
thinking_max = 500
""",
    price="""
currency = "CNY"
input = "1.000001"
cached_input = "0.1"
cache_write = "1.25"
output = "3"
thinking = "4"
tiers = [{ input_max = 8192, output_max = 200, input = "1.000001" }, { input = "2.000002" }]
""",
)


@pytest.fixture
def config(verbs: Verbs) -> Config:
    return load(verbs.path, {}, secrets=False)


def words(model: str, usage: Usage, at: str = "2026-11-23T01:00:00Z") -> tuple[str, ...]:
    counts = {
        "--input": usage.prompt,
        "--cached": usage.cached,
        "--cache-write": usage.cache_write,
        "--output": usage.completion,
        "--reasoning": usage.reasoning,
    }
    return ("quote", model, *(word for name, count in counts.items() for word in (name, str(count))), "--at", at)


def some_usage(rng: random.Random) -> Usage:
    prompt, completion = rng.choice([1, 200, 8192, 8193, 40_000, 256_001]), rng.choice([0, 1, 199, 200, 201, 9_999])
    cached = rng.randint(0, prompt)
    return Usage(prompt, completion, cached, rng.randint(0, prompt - cached), rng.choice([0, completion // 2]))


def test_a_quote_is_what_is_charged_and_adds_up(verbs: Verbs, config: Config) -> None:
    rng = random.Random(1)
    at_ms = 1_795_395_600_000  # 2026-11-23T01:00:00Z
    for model in (*rng.sample(sorted(config.models), 12), "mine/tiered", "deepseek-v4", "qwen-plus"):
        usage = some_usage(rng)
        found = verbs.json(*words(model, usage))
        price = config.models[model].tariff.price_at(at_ms)
        assert found["price_id"] == price.price_id
        for side, tiers in (("charge", price.tiers), ("cost", price.cost_tiers)):
            made = found[side]
            assert made["amount"] == format_nano(amount_nano(tiers, usage))
            exact = sum(Fraction(line["rate"]) * line["tokens"] / 10**6 for line in made["lines"])
            assert exact == sum(Fraction(line["amount"]) for line in made["lines"]) == Fraction(made["sum"])
            rounding = Fraction(made["amount"]) - Fraction(made["sum"])
            assert rounding == Fraction(made["rounding"])
            assert 0 <= rounding < Fraction(1, 10**9)
        tokens = {line["kind"]: line["tokens"] for line in found["charge"]["lines"]}
        assert sum(tokens.get(kind, 0) for kind in ("input", "cached_input", "cache_write")) == usage.prompt
        assert sum(tokens.get(kind, 0) for kind in ("output", "thinking")) == usage.completion


def test_a_quote_is_never_above_the_hold_that_it_names(verbs: Verbs, config: Config) -> None:
    rng = random.Random(2)
    for _ in range(40):
        found = verbs.json(*words(rng.choice(sorted(config.models)), some_usage(rng)))
        assert Decimal(found["charge"]["amount"]) <= Decimal(found["hold_at_most"]["amount"])


def test_a_hold_is_bounded_by_the_context_and_the_limit(verbs: Verbs) -> None:
    hold = verbs.json(*words("mine/tiered", Usage(10, 10)))["hold_at_most"]
    assert (hold["input_up_to"], hold["output_limit"], hold["thinking_beside_it"]) == (32768, 4096, 500)
    dear = Fraction(2_000_002, 1_000_000) * Fraction("0.1389") * Fraction("1.1")  # the dearer tier, with all of it
    rates = (dear * Fraction("1.25") / Fraction("1.000001"), dear * 4 / Fraction("1.000001"))
    micro = [-(-rate * 10**6 // 1) for rate in rates]  # each rounded up to a micro-unit
    assert Fraction(hold["amount"]) == -(-(32768 * micro[0] + 4596 * micro[1]) // 1000) / Fraction(10**9)
    assert verbs.json(*words("mine/tiered", Usage(10, 6000, reasoning=900)))["hold_at_most"]["output_limit"] == 5100
    assert (
        verbs.json(*words("mine/tiered", Usage(10, 6000, reasoning=900)))["hold_at_most"]["thinking_beside_it"] == 900
    )


@pytest.mark.parametrize(
    ("usage", "number", "kinds"),
    [
        (Usage(8192, 200), 1, ["input", "output"]),
        (Usage(8193, 200), 2, ["input", "output"]),
        (Usage(8192, 201), 2, ["input", "output"]),
        (Usage(5, 2, cached=2, cache_write=3, reasoning=1), 1, ["cached_input", "cache_write", "thinking"]),
        (Usage(5, 0), 1, ["input"]),
        (Usage(0, 0), 1, []),
    ],
)
def test_the_tier_and_the_kinds_are_shown(verbs: Verbs, usage: Usage, number: int, kinds: list[str]) -> None:
    found = verbs.json(*words("mine/tiered", usage))
    bounds = (8192, 200) if number == 1 else (None, None)
    assert found["tier"] == {"number": number, "of": 2, "input_up_to": bounds[0], "output_up_to": bounds[1]}
    assert [line["kind"] for line in found["charge"]["lines"]] == kinds
    said = verbs(*words("mine/tiered", usage))
    assert ("1 of 2, input up to 8192 and output up to 200" if number == 1 else "2 of 2, above the others") in said


@pytest.mark.parametrize(
    ("at", "period"),
    [
        ("2026-11-23T08:59:59+08:00", "off_peak"),
        ("2026-11-23T09:00:00+08:00", "peak"),
        ("2026-11-23T01:00:00", "peak"),
        ("2026-11-23T00:59:59.999", "off_peak"),
        ("2026-11-22T20:00:00-05:00", "peak"),
        ("2026-10-01T10:00+08:00", "off_peak"),  # a holiday
        ("2026-10-10T10:00+08:00", "peak"),  # a Saturday that is worked
    ],
)
def test_the_instant_decides(verbs: Verbs, at: str, period: str) -> None:
    found = verbs.json(*words("deepseek-v4", Usage(1_000_000, 0), at))
    assert (found["period"], found["cost"]["amount"]) == (period, "1.32" if period == "peak" else "0.66")
    assumed = "the time was given without an offset and taken as UTC"
    without = at.count("+") + at.count("-05") == 0
    assert (assumed in found["notes"]) == without
    assert (f"Note: {assumed}." in verbs(*words("deepseek-v4", Usage(1_000_000, 0), at))) == without
    assert found["at"].endswith("Z")
    assert f"period    {period.replace('_', '-')}\n" in verbs(*words("deepseek-v4", Usage(1, 1), at))


def test_without_a_time_it_is_now(verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_proxy.cli.quote.now_ms", lambda: 1_795_395_600_987)
    found = verbs.json("quote", "deepseek-v4", "--input", "1", "--output", "1")
    assert (found["at"], found["period"], found["notes"][:-1]) == ("2026-11-23T01:00:00Z", "peak", [])


def test_what_a_person_is_shown(verbs: Verbs) -> None:
    lines = [" ".join(line.split()) for line in verbs(*words("mine/tiered", Usage(100, 7, 30))).splitlines()]
    for line in (
        "model mine/tiered",
        "provider local, as theirs",
        "at 2026-11-23T01:00:00Z",
        "period always",
        "source configuration",
        "input 70 0.152791 0.000010695370 USD",
        "cached input 30 0.015279 0.000000458370 USD",
        "output 7 0.45837 0.000003208590 USD",
        "sum – – 0.000014362330 USD",
        "rounded up by – – 0.000000000670 USD",
        "charge – – 0.000014363000 USD",
        "input 70 1.000001 0.000070000070 CNY",
        "cost – – 0.000094001000 CNY",
        "Charge 0.000014363 USD, cost 0.000094001 CNY.",
    ):
        assert line in lines
    assert any(line.endswith("list price in CNY × fx 0.1389 × markup 1.1") for line in lines)


def test_what_is_billed_as_it_is_charged_is_shown_once(verbs: Verbs) -> None:
    counts = words("deepseek-v4", Usage(100, 7))
    assert verbs(*counts).count("kind of token") == 2
    verbs.path.write_text(TOML.replace('markup = "1.1"', ""))
    said = verbs(*counts)
    assert said.count("kind of token") == 1
    assert "Charge 0.00015972 USD, cost 0.00015972 USD." in said


@pytest.mark.parametrize(
    ("usage", "note"),
    [
        (Usage(32_769, 1), "the model takes at most 32768 tokens of input"),
        (Usage(1, 10_501), "one answer of the model has at most 10500 tokens"),
        (Usage(32_768, 10_500), None),
    ],
)
def test_more_than_the_model_can_is_quoted_with_a_note(verbs: Verbs, usage: Usage, note: str | None) -> None:
    assert verbs.json(*words("mine/tiered", usage))["notes"] == ([] if note is None else [note])


def test_doubts_about_the_price_are_notes(verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    far = words("deepseek-v4", Usage(1, 1), "2031-01-01T12:00Z")
    assert any("calendar of holidays ends on 20" in note for note in verbs.json(*far)["notes"])
    assert not any("older" in note for note in verbs.json(*far)["notes"])  # the source is as old as it is today
    monkeypatch.setattr("nexus_proxy.cli.quote.now_ms", lambda: 1_924_992_000_000)  # 2031
    assert "the price's source is older than 90 days" in verbs.json(*far)["notes"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--input", "1"), "Missing option '--output'"),
        (("--input", "-1", "--output", "1"), "not '-1'"),
        (("--input", "1.5", "--output", "1"), "expected a whole number of tokens from 0 to 1000000000000, not '1.5'"),
        (("--input", str(10**12 + 1), "--output", "1"), "not '1000000000001'"),
        (("--input", "5", "--output", "1", "--cached", "6"), "parts of --input"),
        (("--input", "5", "--output", "1", "--cached", "3", "--cache-write", "3"), "parts of --input"),
        (("--input", "5", "--output", "1", "--reasoning", "2"), "part of --output"),
        (("--input", "5", "--output", "1", "--at", "tomorrow"), "expected a time such as"),
        (("--input", "5", "--output", "1", "--at", "2026-13-01"), "expected a time such as"),
        (("--input", "5", "--output", "1", "--at", "9999-12-31T23:00-08:00"), "expected a time such as"),
    ],
)
def test_wrong_usage_exits_2(verbs: Verbs, more: tuple[str, ...], said: str) -> None:
    assert verbs("quote", "mine/tiered", *more, code=2) == ""
    assert said in " ".join(verbs.err.split())


def test_the_widest_figures_that_can_be_given(verbs: Verbs) -> None:
    for at in ("0001-01-01", "9999-12-31T23:59:59Z"):
        found = verbs.json(*words("deepseek-v4", Usage(10**12, 10**12), at))
        assert Fraction(found["cost"]["amount"]) in (5_280_000, 2_640_000)


def test_a_model_that_is_not_served_exits_1(verbs: Verbs) -> None:
    verbs("quote", "mine/tired", "--input", "1", "--output", "1", code=1)
    assert verbs.err == "nexus-proxy: no model 'mine/tired' is served; did you mean mine/tiered?\n"
    verbs("quote", "zzz", "--input", "1", "--output", "1", code=1)
    assert "`nexus-proxy models`" in verbs.err


def test_a_model_of_the_catalogue_that_is_not_served_says_where_it_is_and_why(verbs: Verbs) -> None:
    off = "the provider is not switched on"
    verbs("quote", "kimi-k3", "--input", "1", "--output", "1", code=1)
    assert verbs.err == (
        f"nexus-proxy: no model 'kimi-k3' is served: moonshot-intl has it, but {off}; moonshot-cn has it, but {off}\n"
    )
    verbs.path.write_text(TOML + '[models."deepseek-v4"]\nenabled = false\n')
    verbs("quote", "deepseek-v4", "--input", "1", "--output", "1", code=1)
    assert verbs.err.endswith(": deepseek has it, but switched off in the configuration\n")


def test_a_sum_that_is_round_is_not_rounded_up(verbs: Verbs) -> None:
    assert "rounded up by" in verbs(*words("mine/tiered", Usage(100, 7)))
    said = verbs(*words("deepseek-v4", Usage(1_000_000, 0)))
    assert "sum" in said
    assert "rounded up by" not in said


def test_a_wrong_configuration_exits_1_and_no_ledger_is_made(verbs: Verbs, tmp_path: Path) -> None:
    verbs("quote", "mine/tiered", "--input", "1", "--output", "1")
    assert list(tmp_path.iterdir()) == [verbs.path]
    verbs.path.write_text("colour = 1")
    verbs("quote", "mine/tiered", "--input", "1", "--output", "1", code=1)
    assert "colour: unknown key" in verbs.err
