"""What each request must have cost, computed by somebody who does not trust us.

Strategy: exact fractions; the counts come from the upstream's own log of what it sent, the prices from the
configuration's text. Nothing of the program is imported. The ledger is only compared with, request by request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

NANO = 10**9


@dataclass(frozen=True, slots=True)
class Truth:
    """What the upstream says of one request. `usage` None: it reported none."""

    model: str  # as the client asked
    usage: Mapping[str, Any] | None


def charge_nano(usage: Mapping[str, Any], price: Mapping[str, str]) -> int:
    """Return the exact charge of a usage object at a flat price per million tokens, rounded up once.

    What was written to a cache costs as fresh input does where it has no price of its own; where thinking has one, all
    of the output costs that once there was thinking.
    """
    prompt, completion = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens") or 0
    written = details.get("cache_creation_input_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    of_input = Fraction(price["input"])
    of_cached = Fraction(price.get("cached_input", price["input"]))
    of_written = Fraction(price.get("cache_write", price["input"]))
    of_output = Fraction(price.get("thinking", price["output"]) if thought else price["output"])
    of_prompt = (prompt - cached - written) * of_input + cached * of_cached + written * of_written
    return ceil((of_prompt + completion * of_output) / 1_000_000 * NANO)


def nano(amount: object) -> int:
    """Return an amount of a view in nano-units; it must be exact."""
    value = Fraction(str(amount)) * NANO
    assert value.denominator == 1, f"{amount!r} is no whole number of nano-units"
    return int(value)


def differences(
    rows: Mapping[str, Mapping[str, Any]], truths: Mapping[str, Truth], settings: Mapping[str, Any]
) -> list[str]:
    """Compare rows of the view `usage` with the truth, both by request id; return what does not agree, for a person."""
    wrong = [
        f"{request_id}: in the ledger, but the upstream never saw it" for request_id in rows.keys() - truths.keys()
    ]
    for request_id, truth in truths.items():
        row = rows.get(request_id)
        if row is None:
            wrong.append(f"{request_id}: the upstream saw it, the ledger did not")
        elif reason := _difference(row, truth, settings["models"][truth.model]["price"]):
            wrong.append(f"{request_id}: {reason}; truth {truth}, row {dict(row)}")
    return wrong


def _difference(row: Mapping[str, Any], truth: Truth, price: Mapping[str, str]) -> str | None:
    if row["closed_at"] is None:
        return "not closed"
    charge, hold, source = nano(row["charge"]), nano(row["hold"]), row["usage_source"]
    if not 0 <= charge <= hold:
        return "charge outside of the hold"
    if truth.usage is not None:
        expected = charge_nano(truth.usage, price)
        if source in ("reported", "drained", "cumulative") and charge == expected:
            return None
        return f"charge {charge}, expected {expected}"
    if source == "none":
        return None if charge == 0 else "charged without a source"
    return None if source in ("estimated", "recovered") and charge > 0 else f"no usage was sent, but source is {source}"
