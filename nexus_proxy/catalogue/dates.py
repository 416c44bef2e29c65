"""How old a source is, and how far a calendar knows.

Strategy: dates of the published kind in, days and dates out; what day it is now is the caller's business.
"""

from datetime import date

from nexus_proxy.core.pricing import Schedule

_EPOCH_DAY = date(1970, 1, 1).toordinal()


def stale_days(source_date: str, today: date) -> int:
    """Return how old a source is, in days. A month or a year alone (`2026-10`, `2026`) counts from its first day: old
    rather than fresh. ValueError if it is no date."""
    year, month, day = (*map(int, source_date.split("-")), 1, 1)[:3]
    return (today - date(year, month, day)).days


def known_until(schedule: Schedule) -> date | None:
    """Return the last day that a schedule's calendar knows, or None if it has no calendar.

    Calendars are published by the year: one that names a day of a year knows that year.
    """
    named = schedule.holidays | schedule.working_days
    return date(date.fromordinal(max(named) + _EPOCH_DAY).year, 12, 31) if named else None
