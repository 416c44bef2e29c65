"""A limiter in memory, for one process.

Strategy: one exact window for each subject. On one event loop nothing else runs between the look at all limits and the
count against all of them, so they admit together without a lock. Windows that have emptied are forgotten a few at a
time, whenever somebody is admitted, so memory is bounded by what was admitted within about a minute.
"""

from collections import deque
from collections.abc import Sequence

from nexus_proxy.core.window import Window
from nexus_proxy.limiter.protocol import WINDOW_NS, Admitted, Limit, Refused, Standing

_SWEPT_PER_LIMIT = 2  # an admission adds one window for each limit at most, so forgetting outruns remembering


class MemoryLimiter:
    """The windows of this process."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}
        self._sweep: deque[str] = deque()  # every subject that has a window, once

    def __len__(self) -> int:
        """Return how many subjects are remembered."""
        return len(self._windows)

    async def admit(self, limits: Sequence[Limit], now_ns: int) -> Admitted | Refused:
        """Count one request against all limits, or against none."""
        wait_ns = 0
        for limit in limits:
            window = self._windows.get(limit.subject)
            if window is not None or limit.rpm <= 0:
                wait_ns = max(wait_ns, (window or Window(WINDOW_NS)).wait_ns(limit.rpm, now_ns))
        if wait_ns:
            return Refused(self._standing(limits, now_ns), wait_ns)
        for subject in {limit.subject for limit in limits} if len(limits) > 1 else (limits[0].subject,):
            self._window(subject).add(now_ns)
        self._forget(_SWEPT_PER_LIMIT * len(limits), now_ns)
        return Admitted(self._standing(limits, now_ns))

    async def look(self, limits: Sequence[Limit], now_ns: int) -> Standing:
        """Tell where the tightest limit stands; counts nothing."""
        return self._standing(limits, now_ns)

    async def seed(self, subject: str, times_ns: Sequence[int], now_ns: int) -> None:
        """Put back admissions of an earlier run, oldest first; times may be before this process began."""
        self._window(subject).seed(times_ns, now_ns)

    async def close(self) -> None:
        """Forget everything."""
        self._windows.clear()
        self._sweep.clear()

    def _window(self, subject: str) -> Window:
        window = self._windows.get(subject)
        if window is None:
            window = self._windows[subject] = Window(WINDOW_NS)
            self._sweep.append(subject)
        return window

    def _standing(self, limits: Sequence[Limit], now_ns: int) -> Standing:
        """Return the tightest: the least that remains, then the lowest limit."""
        assert limits, "a request is under the limit of its account at least"
        tightest = None
        for limit in limits:
            window = self._windows.get(limit.subject)
            used, reset_ns = (window.count(now_ns), window.empty_in_ns(now_ns)) if window else (0, 0)
            standing = Standing(limit.rpm, max(limit.rpm - used, 0), reset_ns)
            if tightest is None or (standing.remaining, standing.limit) < (tightest.remaining, tightest.limit):
                tightest = standing
        assert tightest is not None
        return tightest

    def _forget(self, at_most: int, now_ns: int) -> None:
        for _ in range(min(at_most, len(self._sweep))):
            subject = self._sweep.popleft()
            if self._windows[subject].count(now_ns):
                self._sweep.append(subject)
            else:
                del self._windows[subject]
