"""What a limiter does, whichever store is behind it.

Strategy: one question, several limits. A request is admitted by all of its limits together or by none. The window is
half-open, (t − 60 s, t]. Times are nanoseconds of a clock that never goes back, given by the caller. The values are
plain classes: every request makes three of them.
"""

from collections.abc import Sequence
from typing import Final, Protocol

WINDOW_NS: Final = 60_000_000_000


class Limit:
    """At most `rpm` requests of `subject` (`account:7`, `key:12`) in any window."""

    __slots__ = ("rpm", "subject")

    def __init__(self, subject: str, rpm: int) -> None:
        self.subject = subject
        self.rpm = rpm


class Standing:
    """Where the tightest of the limits stands: for the x-ratelimit headers."""

    __slots__ = ("limit", "remaining", "reset_ns")

    def __init__(self, limit: int, remaining: int, reset_ns: int) -> None:
        self.limit = limit
        self.remaining = remaining
        self.reset_ns = reset_ns  # until the window is empty again, if nobody else is admitted meanwhile


class Admitted:
    """The request counts against every limit."""

    __slots__ = ("standing",)

    def __init__(self, standing: Standing) -> None:
        self.standing = standing


class Refused:
    """The request counts against no limit. After `retry_after_ns` it is admitted, if nobody else is meanwhile."""

    __slots__ = ("retry_after_ns", "standing")

    def __init__(self, standing: Standing, retry_after_ns: int) -> None:
        self.standing = standing
        self.retry_after_ns = retry_after_ns


class Limiter(Protocol):
    """One store of windows. The limits of one question are of different subjects."""

    async def admit(self, limits: Sequence[Limit], now_ns: int) -> Admitted | Refused:
        """Count one request against all limits, or against none."""

    async def look(self, limits: Sequence[Limit], now_ns: int) -> Standing:
        """Tell where the tightest limit stands; counts nothing."""

    async def seed(self, subject: str, times_ns: Sequence[int], now_ns: int) -> None:
        """Put back admissions of an earlier run, oldest first; times may be before this process began."""

    async def close(self) -> None: ...
