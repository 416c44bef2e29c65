"""How values are written for people."""

import pytest

from nexus_proxy.cli.printing import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1000, "1000 entries")]
)
def test_one_is_one(number: int, words: str) -> None:
    assert counted(number, "entry", "entries") == words


def test_most_plurals_have_an_s() -> None:
    assert (counted(1, "price"), counted(2, "price")) == ("1 price", "2 prices")
