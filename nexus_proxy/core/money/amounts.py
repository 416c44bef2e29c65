"""Exact amounts of money, in integers.

Strategy: a decimal text is parsed once into an integer and never meets a float. Amounts are nano-units of a currency
(1e-9); prices are micro-units per million tokens, which is the same number as pico-units (1e-12) per token.
"""

import re
from typing import Final

NANO: Final = 1_000_000_000
PICO_PER_NANO: Final = 1_000
AMOUNT_NANO_MAX: Final = 2**62  # far above any balance, far enough below int64 that a sum of two cannot overflow

_DECIMAL: Final = re.compile(r"([+-]?)(\d{1,12})(?:\.(\d{1,30}))?", re.ASCII)


def parse_decimal(text: str, places: int) -> int:
    """Return `text` × 10**places as an integer. ValueError if it is no plain decimal, or has more places than that."""
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a decimal such as '12.50', not {text!r}")
    sign, whole, fraction = match[1], match[2], (match[3] or "").rstrip("0")
    if len(fraction) > places:
        raise ValueError(f"{text!r} has more than {places} decimal places")
    value: int = int(whole) * 10**places + int(fraction.ljust(places, "0") or "0")
    return -value if sign == "-" else value


def parse_nano(text: str) -> int:
    """Return an amount in nano-units. ValueError if it is no plain decimal of at most 9 places, or too large."""
    nano = parse_decimal(text, 9)
    if abs(nano) > AMOUNT_NANO_MAX:
        raise ValueError(f"{text!r} is out of range")
    return nano


def format_nano(nano: int, places_min: int = 2) -> str:
    """Write an amount as a decimal with `places_min` to 9 places, no exponent: -1500000000 is '-1.50'."""
    amount = -nano if nano < 0 else nano
    # Behind a leading 1 the nine digits keep their zeros. (Formats that pad are what costs, compiled or not.)
    fraction = str(NANO + amount % NANO)[1:].rstrip("0")
    if len(fraction) < places_min:
        fraction = fraction.ljust(places_min, "0")
    whole = str(amount // NANO)
    if nano < 0:
        whole = "-" + whole
    return f"{whole}.{fraction}" if fraction else whole


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide, rounded up (towards +infinity)."""
    return -(-numerator // denominator)
