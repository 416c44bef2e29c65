"""How old a source is, and how far a calendar knows."""

from datetime import date

import pytest

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.catalogue.dates import day_number, first_day, known_until, stale_days
from nexus_proxy.core.money.prices import Schedule


@pytest.mark.parametrize(
    ("source_date", "days"),
    [
        ("2026-11-22", 0),
        ("2026-11-15", 7),
        ("2026-08-24", 90),
        ("2026-08-23", 91),
        ("2026-11", 21),  # a month counts from its first day
        ("2026", 325),  # and a year from its own
        ("2026-11-23", -1),
    ],
)
def test_the_age_of_a_source_is_counted_from_its_earliest_day(source_date: str, days: int) -> None:
    assert stale_days(source_date, date(2026, 11, 22)) == days


@pytest.mark.parametrize("text", ["", "spring", "2026-13", "2026-11-31"])
def test_what_is_no_date_has_no_age(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        stale_days(text, date(2026, 11, 22))


def test_days_are_counted_from_1970() -> None:
    assert [day_number(first_day(text)) for text in ("1970", "1970-02", "1969-12-31", "2026-11-22")] == [
        0,
        31,
        -1,
        20_779,
    ]


def test_a_calendar_knows_whole_years() -> None:
    schedule = load_catalogue().providers["deepseek"].schedule
    assert schedule is not None
    assert known_until(schedule) == date(2026, 12, 31)
    assert known_until(Schedule(0, ((0, 3600),), frozenset(), frozenset())) is None
    worked = frozenset({(date(2028, 1, 2) - date(1970, 1, 1)).days})
    assert known_until(Schedule(0, ((0, 3600),), frozenset(), worked)) == date(2028, 12, 31)
