"""Usage objects: real ones to the token, others never to anybody's credit."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.usage import COUNT_MAX, Usage, later_usage, read_usage, with_thinking

COUNTED = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, Usage(100, 20)),
        ({"prompt_tokens_details": {"cached_tokens": 64}}, Usage(100, 20, cached=64)),
        ({"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}, Usage(100, 20, cached=64)),
        ({"cached_tokens": 64}, Usage(100, 20, cached=64)),
        ({"input_tokens_details": {"cached_tokens": 64}}, Usage(100, 20, cached=64)),
        ({"prompt_tokens_details": {"cached_tokens": 8}, "cached_tokens": 64}, Usage(100, 20, cached=8)),
        ({"prompt_tokens_details": {"cached_tokens": None}, "cached_tokens": 64}, Usage(100, 20, cached=64)),
        ({"prompt_tokens_details": None, "cached_tokens": 64}, Usage(100, 20, cached=64)),
        (
            {"prompt_tokens_details": {"cached_tokens": 8, "cache_creation_input_tokens": 5}},
            Usage(100, 20, cached=8, cache_write=5),
        ),
        ({"prompt_tokens_details": {"cache_write_tokens": 5}}, Usage(100, 20, cache_write=5)),
        ({"completion_tokens_details": {"reasoning_tokens": 7}}, Usage(100, 20, reasoning=7)),
        ({"output_tokens_details": {"reasoning_tokens": 7}}, Usage(100, 20, reasoning=7)),
    ],
)
def test_the_parts_are_found_where_each_provider_puts_them(more: dict[str, Any], expected: Usage) -> None:
    assert read_usage({**COUNTED, **more}) == expected


def test_the_names_of_the_responses_api_count_too() -> None:
    assert read_usage({"input_tokens": 5, "output_tokens": 3}) == Usage(5, 3)


@pytest.mark.parametrize("found", [None, [], "x", 1, {}, {"total_tokens": 0, "total_characters": 0}])
def test_placeholders_are_not_real(found: Any) -> None:
    assert read_usage(found) is None


@pytest.mark.parametrize("wrong", [0, -1, 1.0, 5.5, "5", True, math.nan, 1e30, COUNT_MAX + 1, [5], {"a": 1}])
def test_b28_a_prompt_that_is_no_count_is_not_real(wrong: Any) -> None:
    assert read_usage({**COUNTED, "prompt_tokens": wrong}) is None


@pytest.mark.parametrize("wrong", [-1, 1.0, "5", False, math.nan, 1e30, COUNT_MAX + 1, [5]])
def test_b28_a_completion_that_is_no_count_makes_the_usage_not_real(wrong: Any) -> None:
    assert read_usage({**COUNTED, "completion_tokens": wrong}) is None


@pytest.mark.parametrize("wrong", [-1, 1.0, "5", True, math.nan, 1e30])
def test_b28_a_part_that_is_no_count_is_nothing_and_flagged(wrong: Any) -> None:
    assert read_usage({**COUNTED, "cached_tokens": wrong}) == Usage(100, 20, flagged=True)


def test_parts_are_clamped_to_their_whole_and_flagged() -> None:
    details = {"cached_tokens": 90, "cache_write_tokens": 20}
    assert read_usage({**COUNTED, "prompt_tokens_details": details}) == Usage(100, 20, 90, 10, flagged=True)
    assert read_usage({**COUNTED, "cached_tokens": 101}) == Usage(100, 20, cached=100, flagged=True)
    thinking = {"completion_tokens_details": {"reasoning_tokens": 21}}
    assert read_usage({**COUNTED, **thinking}) == Usage(100, 20, reasoning=20, flagged=True)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"prompt_tokens": 10, "total_tokens": 14}, Usage(10, 4)),
        ({"prompt_tokens": 10, "completion_tokens": None, "total_tokens": 14}, Usage(10, 4)),
        ({"prompt_tokens": 10}, Usage(10, 0, flagged=True)),
        ({"prompt_tokens": 10, "total_tokens": 9}, Usage(10, 0, flagged=True)),
        ({"prompt_tokens": 10, "total_tokens": "14"}, Usage(10, 0, flagged=True)),
    ],
)
def test_a_missing_completion_is_taken_from_the_total(found: dict[str, Any], expected: Usage) -> None:
    assert read_usage(found) == expected


def test_a_choices_usage_stands_in_and_fills_in() -> None:
    in_choice = {**COUNTED, "cached_tokens": 64}
    assert read_usage(None, in_choice) == Usage(100, 20, cached=64)
    assert read_usage({"total_tokens": 0}, in_choice) == Usage(100, 20, cached=64)
    assert read_usage(COUNTED, in_choice) == Usage(100, 20, cached=64)
    assert read_usage({**COUNTED, "cached_tokens": 0}, in_choice) == Usage(100, 20)
    assert read_usage(COUNTED, "nonsense") == Usage(100, 20)
    assert read_usage(None, "nonsense") is None


def test_b25_b26_the_last_wins_if_it_takes_nothing_back() -> None:
    assert later_usage(None, Usage(5, 1)) == Usage(5, 1)
    assert later_usage(Usage(5, 1, cached=5), Usage(5, 2)) == Usage(5, 2)


def test_b25_else_the_most_of_each_flagged() -> None:
    assert later_usage(Usage(9, 5, 9, 0, 2), Usage(10, 4, 3, 3, 1)) == Usage(10, 5, 9, 1, 2, flagged=True)
    assert later_usage(Usage(10, 4), Usage(9, 5)) == Usage(10, 5, flagged=True)


def test_reasoning_that_was_seen_and_not_counted_is_one_token_flagged() -> None:
    assert with_thinking(Usage(5, 3)) == Usage(5, 3, reasoning=1, flagged=True)
    for known in (Usage(5, 3, reasoning=2), Usage(5, 0)):
        assert with_thinking(known) is known


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**13), 10**13) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), inner)
    ),
    max_leaves=4,
)
KEYS = ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "prompt_tokens_details",
        "completion_tokens_details", "prompt_cache_hit_tokens"]  # fmt: skip
FOUND = st.dictionaries(st.sampled_from(KEYS), ANYTHING)


@given(FOUND, FOUND | ANYTHING)
def test_b28_e16_whatever_is_reported_every_count_is_sound(found: dict[str, Any], other: Any) -> None:
    first, second = read_usage(found, other), read_usage(other)
    for usage in (first, second, later_usage(first, second) if second else None):
        if usage is not None:
            assert 0 < usage.prompt <= COUNT_MAX
            assert 0 <= usage.completion <= COUNT_MAX
            assert usage.cached >= 0
            assert usage.cache_write >= 0
            assert usage.cached + usage.cache_write <= usage.prompt
            assert 0 <= usage.reasoning <= usage.completion
