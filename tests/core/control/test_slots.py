"""Bounded slots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.control.slots import Slots


@given(st.integers(0, 20), st.lists(st.tuples(st.booleans(), st.integers(0, 8))))
def test_b46_never_more_are_taken_than_there_are(most: int, steps: list[tuple[bool, int]]) -> None:
    seen: list[int] = []
    slots = Slots(most, seen.append)
    for entering, number in steps:
        before = slots.taken
        if entering:
            entered = slots.enter(number)
            assert entered is (before + number <= most)
            assert slots.taken == (before + number if entered else before)
        elif number <= before:
            slots.leave(number)
            assert slots.taken == before - number
        assert 0 <= slots.taken <= most
        if slots.taken != before:
            assert seen[-1] == slots.taken


@pytest.mark.parametrize("number", [1, -1])
def test_giving_back_what_was_not_taken_is_our_own_bug(number: int) -> None:
    with pytest.raises(AssertionError):
        Slots(3).leave(number)


def test_nobody_needs_to_look() -> None:
    slots = Slots(1)
    assert slots.enter()
    assert not slots.enter()
    slots.leave()
    assert slots.enter()
