"""Whether the answer, the ledger's row and the balance of the showing agree.

Strategy: everything is computed anew, in fractions, from the counts that the provider sent and the decimals that the
configuration names; nothing of the door's own arithmetic is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from nexus_proxy.demo.shapes import Counts

_NANO: Final = 10**9
_PER_MILLION: Final = 10**6


@dataclass(frozen=True, slots=True)
class Line:
    """What one kind of token cost, exactly; `price` is per million tokens."""

    kind: str
    tokens: int
    price: str
    amount: Fraction


@dataclass(frozen=True, slots=True)
class Seen:
    """What the three witnesses said."""

    sent_text: str  # by the provider
    got_text: str  # by the client
    got_done: bool
    counts: Counts | None  # of the provider's usage; None if it sent none
    row: Mapping[str, Any] | None  # of the view `usage`
    before: Decimal
    after: Decimal


def lines(counts: Counts, prices: Mapping[str, str]) -> list[Line]:
    """Price each kind of token. `prices` has `input`, `cached_input`, `output`."""
    kinds = {
        "input": counts.prompt - counts.cached,
        "cached_input": counts.cached,
        "output": counts.completion,
    }
    return [
        Line(kind.replace("_", " "), tokens, prices[kind], tokens * Fraction(prices[kind]) / _PER_MILLION)
        for kind, tokens in kinds.items()
    ]


def charge(found: list[Line]) -> Decimal:
    """Sum up and round up, once, to 9 decimals."""
    return Decimal(math.ceil(sum(line.amount for line in found) * _NANO)) / _NANO


def disagreements(seen: Seen, prices: Mapping[str, str]) -> list[str]:
    """Return what does not agree, for a person; nothing if all is well."""
    found = []
    if not seen.got_done:
        found.append("the answer did not end with [DONE]")
    if seen.got_text != seen.sent_text:
        found.append(f"the client got {len(seen.got_text)} characters, the provider sent {len(seen.sent_text)}")
    if seen.counts is None:
        return [*found, "the provider sent no usage"]
    due = charge(lines(seen.counts, prices))
    if seen.before - seen.after != due:
        found.append(f"the balance went down by {seen.before - seen.after}, due is {due}")
    if seen.row is None:
        return [*found, "the ledger has no row of the request"]
    expected = {
        "state": "posted",
        "end_state": "complete",
        "usage_source": "reported",
        "prompt_tokens": seen.counts.prompt,
        "cached_tokens": seen.counts.cached,
        "completion_tokens": seen.counts.completion,
    }
    for name, value in expected.items():
        if seen.row[name] != value:
            found.append(f"the row's {name} is {seen.row[name]!r}, expected {value!r}")
    if Decimal(str(seen.row["charge"])) != due:
        found.append(f"the row's charge is {seen.row['charge']}, due is {due}")
    return found
