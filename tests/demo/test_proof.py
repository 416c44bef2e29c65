"""The demo's own check: it agrees with the truth, and each lie is found."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from nexus_proxy.demo.proof import Seen, charge, disagreements, lines
from nexus_proxy.demo.shapes import Counts

PRICES = {"input": "0.50", "cached_input": "0.05", "output": "2.00"}
COUNTS = Counts(prompt=21, cached=9, cache_write=0, completion=7, reasoning=0)
DUE = Decimal("0.00002045")  # (12 × 0.50 + 9 × 0.05 + 7 × 2.00) / 1,000,000
ROW = {
    "state": "posted",
    "end_state": "complete",
    "usage_source": "reported",
    "prompt_tokens": 21,
    "cached_tokens": 9,
    "completion_tokens": 7,
    "charge": "0.00002045",
}
TRUE = Seen("hi", "hi", True, COUNTS, ROW, Decimal("5.00"), Decimal("5.00") - DUE)


def test_the_truth_agrees() -> None:
    assert charge(lines(COUNTS, PRICES)) == DUE
    assert disagreements(TRUE, PRICES) == []


def test_e07_the_sum_is_rounded_up_once() -> None:
    assert charge(lines(replace(COUNTS, completion=1), {**PRICES, "output": "0.0001"})) == Decimal("0.000006451")


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        ({"got_text": "h"}, "characters"),
        ({"got_done": False}, "[DONE]"),
        ({"after": Decimal("5.00")}, "balance"),
        ({"row": None}, "no row"),
        ({"counts": None}, "no usage"),
        ({"row": {**ROW, "charge": "0.00002046"}}, "charge"),
        ({"row": {**ROW, "cached_tokens": 0}}, "cached_tokens"),
        ({"row": {**ROW, "end_state": "crashed"}}, "end_state"),
    ],
)
def test_each_lie_is_found(lie: dict[str, Any], named: str) -> None:
    found = disagreements(replace(TRUE, **lie), PRICES)
    assert len(found) == 1
    assert named in found[0]
