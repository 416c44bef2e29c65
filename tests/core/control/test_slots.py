"""Bounded places."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.control.slots import Places


@given(st.integers(0, 20), st.lists(st.tuples(st.booleans(), st.integers(0, 8))))
def test_b46_never_more_are_taken_than_there_are(most: int, steps: list[tuple[bool, int]]) -> None:
    seen: list[int] = []
    places = Places(most, seen.append)
    for entering, number in steps:
        before = places.taken
        if entering:
            entered = places.enter(number)
            assert entered is (before + number <= most)
            assert places.taken == (before + number if entered else before)
        elif number <= before:
            places.leave(number)
            assert places.taken == before - number
        assert 0 <= places.taken <= most
        if places.taken != before:
            assert seen[-1] == places.taken


@pytest.mark.parametrize("number", [1, -1])
def test_giving_back_what_was_not_taken_is_our_own_bug(number: int) -> None:
    with pytest.raises(AssertionError):
        Places(3).leave(number)


def test_nobody_needs_to_look() -> None:
    places = Places(1)
    assert places.enter()
    assert not places.enter()
    places.leave()
    assert places.enter()
