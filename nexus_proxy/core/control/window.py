"""Decide whether one more request fits a sliding window.

Strategy: remember when the admitted requests came, in order; whatever is older than the window is forgotten first. The
window is half-open, (t − width, t]: an admission at t counts until just before t + width. No clock in here: callers
pass now_ns, so every test is a table. The limit is an argument, because a plan may change between two requests.
"""

from collections import deque
from collections.abc import Iterable


class Window:
    """The admissions of one subject within the last `width_ns`. It keeps no more of them than the largest limit."""

    __slots__ = ("_times", "width_ns")

    def __init__(self, width_ns: int) -> None:
        self.width_ns = width_ns
        self._times: deque[int] = deque()  # ascending

    def count(self, now_ns: int) -> int:
        """Return how many admissions the window holds now."""
        times = self._times
        gone_ns = now_ns - self.width_ns
        while times and times[0] <= gone_ns:
            times.popleft()
        return len(times)

    def wait_ns(self, limit: int, now_ns: int) -> int:
        """Return 0 if one more fits now, else the exact time until one fits, if none is added meanwhile.

        A limit of 0 is never met: the answer is the window's width.
        """
        excess = self.count(now_ns) - limit
        if excess < 0:
            return 0
        if limit <= 0:
            return self.width_ns
        return self._times[excess] + self.width_ns - now_ns

    def standing(self, now_ns: int) -> tuple[int, int]:
        """Return how many admissions the window holds, and the time until it is empty if none is added meanwhile."""
        used = self.count(now_ns)
        return used, self._times[-1] + self.width_ns - now_ns if used else 0

    def add(self, now_ns: int) -> tuple[int, int]:
        """Remember an admission, and return the standing with it. `count` was asked at this instant.

        A clock that went back is taken to have stood still.
        """
        times = self._times
        at_ns = times[-1] if times and times[-1] > now_ns else now_ns
        times.append(at_ns)
        return len(times), at_ns + self.width_ns - now_ns

    def seed(self, times_ns: Iterable[int], now_ns: int) -> None:
        """Put back admissions of an earlier run beside those that are here."""
        self._times = deque(sorted([*self._times, *(min(time_ns, now_ns) for time_ns in times_ns)]))
        self.count(now_ns)
