"""Durations as OpenAI writes them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.chain.ratelimit import format_duration

MS, S = 1_000_000, 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (350 * MS, "350ms"),
        (350 * MS + 1, "351ms"),
        (999 * MS, "999ms"),
        (999 * MS + 1, "1s"),
        (S, "1s"),
        (S + 1, "2s"),
        (6 * S, "6s"),
        (59 * S, "59s"),
        (59 * S + 1, "1m0s"),
        (60 * S, "1m0s"),
        (61 * S + 5 * MS, "1m2s"),
        (3600 * S, "60m0s"),
    ],
)
def test_a_duration_is_written_as_openai_does(ns: int, text: str) -> None:
    assert format_duration(ns) == text


@given(st.integers(0, 10**13))
def test_a_duration_is_never_less_than_the_truth(ns: int) -> None:
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)(ms|s))", format_duration(ns))
    assert match is not None
    written = int(match[1] or 0) * 60 * S + int(match[2]) * (MS if match[3] == "ms" else S)
    assert ns <= written < ns + (MS if ns <= 999 * MS else S + MS)
