"""Usage objects: real ones to the token, others never to anybody's credit."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.wire.usage import (
    COUNT_MAX,
    Usage,
    UsageShape,
    later_usage,
    over_choices,
    read_usage,
    with_thinking,
)

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


# --- figures that contradict each other ---------------------------------------------------------------------------


@pytest.mark.parametrize("total", [0, 119, 121, 10_000])
def test_b28_a_total_that_is_no_sum_is_flagged_and_changes_nothing(total: int) -> None:
    assert read_usage({**COUNTED, "total_tokens": total}) == Usage(100, 20, flagged=True)


def test_thinking_beside_the_completion_counts_where_the_total_says_so() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 7}}
    assert read_usage({**COUNTED, **details, "total_tokens": 127}) == Usage(100, 27, reasoning=7, flagged=True)
    assert read_usage({**COUNTED, **details, "total_tokens": 126}) == Usage(100, 20, reasoning=7, flagged=True)
    assert read_usage({**COUNTED, **details}) == Usage(100, 20, reasoning=7)


def test_choices_that_count_themselves_share_one_prompt() -> None:
    assert over_choices([Usage(9, 3)]) == Usage(9, 3)
    assert over_choices([Usage(9, 3, 4, 0, 1), Usage(9, 5, 4, 0, 2)]) == Usage(9, 8, 4, 0, 3)
    assert over_choices([Usage(9, 3, 9), Usage(8, 5, 0, 8, flagged=True)]) == Usage(9, 8, 9, 0, flagged=True)


# --- names of a dialect's own -------------------------------------------------------------------------------------

OWN = UsageShape(
    prompt=(("in", "all"), ("asked",)),
    completion=(("out", "all"),),
    cached=(("in", "hit"),),
    cache_write=(("in", "stored"),),
    reasoning=(("out", "thoughts"),),
    total=(("all",),),
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"in": {"all": 9, "hit": 4, "stored": 2}, "out": {"all": 5, "thoughts": 1}}, Usage(9, 5, 4, 2, 1)),
        ({"asked": 9, "out": {"all": 5}}, Usage(9, 5)),
        ({"in": {"all": 9}, "asked": 7, "prompt_tokens": 5, "completion_tokens": 3}, Usage(9, 3)),
        ({"in": {"all": 9, "hit": 4}, "all": 14, "cached_tokens": 1}, Usage(9, 5, 4)),
        ({"in": {"all": 9}, "out": {"all": 4}, "all": 14}, Usage(9, 4, flagged=True)),
        ({**COUNTED, "cached_tokens": 64}, Usage(100, 20, 64)),
        ({**COUNTED, "in": 3, "out": []}, Usage(100, 20)),
        ({"in": {"all": "9"}, **COUNTED}, None),
        ({"in": {"all": 0}, "out": {"all": 5}}, None),
        ({"in": {"all": 9}, "out": {"all": -5}}, None),
    ],
)
def test_names_of_a_dialects_own_go_before_the_common_ones(found: dict[str, Any], expected: Usage | None) -> None:
    assert read_usage(found, None, OWN) == expected
    assert read_usage(None, found, OWN) == expected


COUNTS = st.integers(0, COUNT_MAX) | st.none()


@given(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS))
def test_the_same_figures_under_other_names_are_the_same_usage(counts: tuple[int | None, ...]) -> None:
    prompt, completion, cached, write, reasoning, total = counts
    common = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": write},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    own = {
        "in": {"all": prompt, "hit": cached, "stored": write},
        "out": {"all": completion, "thoughts": reasoning},
        "all": total,
    }
    assert read_usage(own, None, OWN) == read_usage(common) == read_usage(common, None, OWN)


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


PATHS = st.lists(st.tuples(st.sampled_from(KEYS)) | st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)), max_size=2)
SHAPES = st.builds(
    UsageShape,
    **{name: PATHS.map(tuple) for name in ("prompt", "completion", "cached", "cache_write", "reasoning", "total")},
)


@given(FOUND, FOUND | ANYTHING, st.just(UsageShape()) | SHAPES)
def test_b28_e16_whatever_is_reported_every_count_is_sound(
    found: dict[str, Any], other: Any, shape: UsageShape
) -> None:
    first, second = read_usage(found, other, shape), read_usage(other, None, shape)
    for usage in (first, second, later_usage(first, second) if second else None):
        if usage is not None:
            assert 0 < usage.prompt <= COUNT_MAX
            assert 0 <= usage.completion <= COUNT_MAX
            assert usage.cached >= 0
            assert usage.cache_write >= 0
            assert usage.cached + usage.cache_write <= usage.prompt
            assert 0 <= usage.reasoning <= usage.completion
