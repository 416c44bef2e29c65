"""How old a source is, and how far a calendar knows.

Strategy: dates of the published kind in, days and dates out; what day it is now is the caller's business.
"""

from datetime import date, timedelta
from typing import Final

from nexus_proxy.core.money.prices import Schedule
from nexus_proxy.runtime.clock import EPOCH

EPOCH_DAY: Final = EPOCH.date()


def first_day(text: str) -> date:
    """Return a day, or the first one of a month or a year (`2026-11-15`, `2026-10`, `2026`). ValueError."""
    year, month, day = (*map(int, text.split("-")), 1, 1)[:3]
    return date(year, month, day)


def day_number(day: date) -> int:
    """Return the days since 1970-01-01."""
    return (day - EPOCH_DAY).days


def stale_days(source_date: str, today: date) -> int:
    """Return how old a source is, in days. A month or a year alone counts from its first day: old rather than fresh.
    ValueError if it is no date."""
    return (today - first_day(source_date)).days


def known_until(schedule: Schedule) -> date | None:
    """Return the last day that a schedule's calendar knows, or None if it has no calendar.

    Calendars are published by the year: one that names a day of a year knows that year.
    """
    named = schedule.holidays | schedule.working_days
    return date((EPOCH_DAY + timedelta(max(named))).year, 12, 31) if named else None
