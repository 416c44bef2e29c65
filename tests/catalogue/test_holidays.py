"""Peak and off-peak, second by second at every edge of every window, all through the calendar's year and beyond it."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any

import pytest

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.money.prices import Schedule
from tests.catalogue.published import table

CHINA: dict[str, Any] = table("holidays.json")["china"]
BEIJING = timezone(timedelta(hours=8))
DAY = timedelta(days=1)

# Written down again from the notice of 2025-11-04, by holiday: first and last day off, days that are worked for it.
NOTICE = {
    "New Year": (date(2026, 1, 1), 3, [date(2026, 1, 4)]),
    "Spring Festival": (date(2026, 2, 15), 9, [date(2026, 2, 14), date(2026, 2, 28)]),
    "Qingming": (date(2026, 4, 4), 3, []),
    "Labour Day": (date(2026, 5, 1), 5, [date(2026, 5, 9)]),
    "Dragon Boat": (date(2026, 6, 19), 3, []),
    "Mid-Autumn": (date(2026, 9, 25), 3, []),
    "National Day": (date(2026, 10, 1), 7, [date(2026, 9, 20), date(2026, 10, 10)]),
}
OFF = {first + n * DAY for first, days, _ in NOTICE.values() for n in range(days)}
WORKED = {day for _, _, worked in NOTICE.values() for day in worked}


def schedules() -> dict[str, Schedule]:
    found = {name: provider.schedule for name, provider in load_catalogue().providers.items()}
    return {name: schedule for name, schedule in found.items() if schedule is not None}


def deepseek() -> Schedule:
    return schedules()["deepseek"]


def at(day: date, clock: str, seconds: float = 0) -> int:
    """Milliseconds since 1970 of a Beijing day and time."""
    local = datetime.combine(day, time.fromisoformat(clock), BEIJING) + timedelta(seconds=seconds)
    return round(local.timestamp() * 1000)


def works(day: date) -> bool:
    return day in WORKED or (day.weekday() < 5 and day not in OFF)


def test_the_calendar_is_the_notice() -> None:
    spans = [(date.fromisoformat(first), date.fromisoformat(last)) for first, last in CHINA["holidays"]]
    assert spans == [(first, first + (days - 1) * DAY) for first, days, _ in NOTICE.values()]
    assert {date.fromisoformat(day) for day in CHINA["working_days"]} == WORKED
    assert len(OFF) == 33
    assert all(day.weekday() >= 5 and day not in OFF for day in WORKED)
    assert CHINA["source"]
    assert CHINA["source_date"] == "2025-11-04"


def test_only_a_provider_that_publishes_windows_has_a_schedule() -> None:
    assert set(schedules()) == {"deepseek"}
    assert deepseek().peak == ((9 * 3600, 12 * 3600), (14 * 3600, 18 * 3600))  # 01:00-04:00 and 06:00-10:00 UTC
    assert deepseek().offset_s == 8 * 3600


@pytest.mark.parametrize("month", range(1, 15))  # the year, and two months that the calendar does not know
def test_one_second_on_each_side_of_every_window_of_every_day(month: int) -> None:
    schedule, day = deepseek(), date(2026 + (month - 1) // 12, (month - 1) % 12 + 1, 1)
    last = (day + 31 * DAY).replace(day=1)
    while day < last:
        dear = works(day)
        for start, end in (("09:00", "12:00"), ("14:00", "18:00")):
            edges = [(start, -1), (start, -0.001), (start, 0), (start, 1), (end, -1), (end, -0.001), (end, 0), (end, 1)]
            seen = [schedule.is_peak(at(day, clock, seconds)) for clock, seconds in edges]
            assert seen == [False, False, dear, dear, dear, dear, False, False], (day, start)
        assert not any(
            schedule.is_peak(at(day, clock)) for clock in ("00:00", "08:59:59", "13:00", "18:00", "23:59:59")
        )
        day += DAY


@pytest.mark.parametrize(
    ("last_peak", "next_peak"),
    [
        (date(2026, 11, 20), date(2026, 11, 23)),  # over a weekend
        (date(2026, 4, 3), date(2026, 4, 7)),  # over a public holiday
        (date(2026, 2, 14), date(2026, 2, 24)),  # from a worked Saturday over the Spring Festival
        (date(2026, 2, 27), date(2026, 2, 28)),  # into a worked Saturday, at a month's end
        (date(2026, 2, 28), date(2026, 3, 2)),  # over a month's end, by a Sunday
        (date(2026, 9, 18), date(2026, 9, 20)),  # by a free Saturday into a worked Sunday
        (date(2026, 9, 30), date(2026, 10, 8)),  # over a month's end and a holiday
        (date(2026, 10, 9), date(2026, 10, 10)),
        (date(2026, 11, 30), date(2026, 12, 1)),  # over a month's end
        (date(2025, 12, 31), date(2026, 1, 4)),  # over a year's end, into a worked Sunday
        (date(2026, 12, 31), date(2027, 1, 1)),  # over the calendar's end: a Friday that it does not know is dear
    ],
)
def test_from_the_last_peak_to_the_next_there_is_none(last_peak: date, next_peak: date) -> None:
    schedule = deepseek()
    assert schedule.is_peak(at(last_peak, "18:00", -1))
    assert schedule.is_peak(at(next_peak, "09:00"))
    minutes = (at(next_peak, "09:00") - at(last_peak, "18:00")) // 60_000
    start = at(last_peak, "18:00")
    assert not any(schedule.is_peak(start + minute * 60_000) for minute in range(minutes))
    assert not schedule.is_peak(at(next_peak, "09:00", -0.001))


def test_the_price_in_force_is_that_of_the_instant() -> None:
    schedule = deepseek()
    assert schedule.is_peak(round(datetime(2026, 11, 18, 1, tzinfo=UTC).timestamp() * 1000))
    assert not schedule.is_peak(round(datetime(2026, 11, 18, 4, tzinfo=UTC).timestamp() * 1000))
