"""Decimals in, integers out, and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.money.amounts import AMOUNT_NANO_MAX, ceil_div, format_nano, parse_decimal, parse_nano


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0", 0),
        ("-0", 0),
        ("12.50", 12_500_000_000),
        ("+5", 5_000_000_000),
        ("-0.000000001", -1),
        ("0.1000000000000", 100_000_000),
        ("4611686018.427387904", AMOUNT_NANO_MAX),
    ],
)
def test_a_decimal_is_read_exactly(text: str, nano: int) -> None:
    assert parse_nano(text) == nano


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1.",
        ".5",
        "1e3",
        "1,5",
        "0x1",
        "NaN",
        "inf",
        "١",
        "1_000",
        "--1",
        "1\n",
        "0.0000000001",
        "9" * 13,
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        parse_nano(text)


@pytest.mark.parametrize("text", ["4611686018.427387905", "-4611686018.427387905", "999999999999"])
def test_e16_an_amount_beyond_the_ledgers_integers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        parse_nano(text)


@given(st.integers(-AMOUNT_NANO_MAX, AMOUNT_NANO_MAX))
def test_writing_and_reading_are_inverse(nano: int) -> None:
    text = format_nano(nano)
    assert parse_nano(text) == nano
    assert Decimal(text) * 10**9 == nano
    assert 2 <= len(text.partition(".")[2]) <= 9


@pytest.mark.parametrize(
    ("nano", "places", "text"),
    [(-1_500_000_000, 2, "-1.50"), (1, 2, "0.000000001"), (0, 2, "0.00"), (0, 0, "0"), (42_500_000_000, 0, "42.5")],
)
def test_amounts_are_written_without_exponent(nano: int, places: int, text: str) -> None:
    assert format_nano(nano, places) == text


@given(st.integers(0, 10**12 - 1), st.text("0123456789", min_size=1, max_size=12))
def test_places_beyond_the_limit_are_refused_never_cut(whole: int, fraction: str) -> None:
    text = f"{whole}.{fraction}"
    if len(fraction.rstrip("0")) <= 6:
        assert parse_decimal(text, 6) == Decimal(text) * 10**6
    else:
        with pytest.raises(ValueError, match="decimal places"):
            parse_decimal(text, 6)


@given(st.integers(), st.integers(1))
def test_division_rounds_up(numerator: int, denominator: int) -> None:
    quotient = ceil_div(numerator, denominator)
    assert (quotient - 1) * denominator < numerator <= quotient * denominator
