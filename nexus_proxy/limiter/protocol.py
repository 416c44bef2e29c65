"""What a limiter does, whichever store is behind it.

Strategy: one question, several limits. A request is admitted by all of its limits together or by none. The window is
half-open, (t − 60 s, t]. Times are nanoseconds of a clock that never goes back, given by the caller.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

WINDOW_NS = 60_000_000_000


class Limit(NamedTuple):
    """At most `rpm` requests of `subject` (`account:7`, `key:12`) in any window."""

    subject: str
    rpm: int


class Standing(NamedTuple):
    """Where the tightest of the limits stands: for the x-ratelimit headers."""

    limit: int
    remaining: int
    reset_ns: int  # until the window is empty again, if nobody else is admitted meanwhile


class Admitted(NamedTuple):
    """The request counts against every limit."""

    standing: Standing


class Refused(NamedTuple):
    """The request counts against no limit. After `retry_after_ns` it is admitted, if nobody else is meanwhile."""

    standing: Standing
    retry_after_ns: int


class Limiter(Protocol):
    """One store of windows. The limits of one question are of different subjects."""

    async def admit(self, limits: Sequence[Limit], now_ns: int) -> Admitted | Refused:
        """Count one request against all limits, or against none."""

    async def look(self, limits: Sequence[Limit], now_ns: int) -> Standing:
        """Tell where the tightest limit stands; counts nothing."""

    async def seed(self, subject: str, times_ns: Sequence[int], now_ns: int) -> None:
        """Put back admissions of an earlier run, oldest first; times may be before this process began."""

    async def close(self) -> None: ...
