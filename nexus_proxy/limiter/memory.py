"""A limiter in memory, for one process.

Strategy: one exact window for each subject. On one event loop nothing else runs between the look at all limits and the
count against all of them, so they admit together without a lock. Windows that have emptied are forgotten a few at a
time, whenever somebody is admitted, faster than new ones can come, so memory is bounded by the busiest two minutes.
Each is looked at once a minute, however often it is counted.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

from nexus_proxy.core.control.window import Window
from nexus_proxy.limiter.protocol import WINDOW_NS, Admitted, Limit, Refused, Standing

_EMPTY: Final = Window(WINDOW_NS)
_SWEPT_PER_LIMIT: Final = 2  # an admission adds one window for each limit at most, so forgetting outruns remembering


class MemoryLimiter:
    """The windows of this process."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._sweep: deque[tuple[int, str]] = deque()  # when to look, ascending; every subject with a window, once

    def __len__(self) -> int:
        """Return how many subjects are remembered."""
        return len(self._windows)

    async def admit(self, limits: Sequence[Limit], now_ns: int) -> Admitted | Refused:
        """Count one request against all limits, or against none."""
        for limit in limits:
            window = self._windows.get(limit.subject)
            used = window.count(now_ns) if window is not None else 0
            if used >= limit.rpm:
                return Refused(self._standing(limits, now_ns), self._wait_ns(limits, now_ns))
        tightest = None
        for limit in limits:
            used, reset_ns = self._window(limit.subject, now_ns).add(now_ns)
            standing = Standing(limit.rpm, limit.rpm - used, reset_ns)
            if tightest is None or _is_tighter(standing, tightest):
                tightest = standing
        assert tightest is not None, "a request is under the limit of its account at least"
        if self._sweep[0][0] <= now_ns:
            self._forget(_SWEPT_PER_LIMIT * len(limits), now_ns)
        return Admitted(tightest)

    async def look(self, limits: Sequence[Limit], now_ns: int) -> Standing:
        """Tell where the tightest limit stands; counts nothing."""
        return self._standing(limits, now_ns)

    async def seed(self, subject: str, times_ns: Sequence[int], now_ns: int) -> None:
        """Put back admissions of an earlier run, oldest first; times may be before this process began."""
        self._window(subject, now_ns).seed(times_ns, now_ns)

    async def close(self) -> None:
        """Forget everything."""
        self._windows.clear()
        self._sweep.clear()

    def _window(self, subject: str, now_ns: int) -> Window:
        window = self._windows.get(subject)
        if window is None:
            window = self._windows[subject] = Window(WINDOW_NS)
            self._sweep.append((now_ns + WINDOW_NS, subject))
        return window

    def _wait_ns(self, limits: Sequence[Limit], now_ns: int) -> int:
        """Return the exact time until all limits admit one more: that of the limit which is free last."""
        waits = ((self._windows.get(limit.subject) or _EMPTY).wait_ns(limit.rpm, now_ns) for limit in limits)
        return max(waits)

    def _standing(self, limits: Sequence[Limit], now_ns: int) -> Standing:
        """Return the tightest: the least that remains, then the lowest limit."""
        tightest = None
        for limit in limits:
            window = self._windows.get(limit.subject)
            used, reset_ns = window.standing(now_ns) if window is not None else (0, 0)
            standing = Standing(limit.rpm, limit.rpm - used if used < limit.rpm else 0, reset_ns)
            if tightest is None or _is_tighter(standing, tightest):
                tightest = standing
        assert tightest is not None, "a request is under the limit of its account at least"
        return tightest

    def _forget(self, at_most: int, now_ns: int) -> None:
        sweep = self._sweep
        while sweep and sweep[0][0] <= now_ns and at_most:
            at_most -= 1
            _, subject = sweep.popleft()
            if self._windows[subject].count(now_ns):
                sweep.append((now_ns + WINDOW_NS, subject))  # later than it must be, so that the queue stays in order
            else:
                del self._windows[subject]


def _is_tighter(one: Standing, other: Standing) -> bool:
    if one.remaining != other.remaining:
        return one.remaining < other.remaining
    return one.limit < other.limit
