"""Who waits for something that mostly comes in time, and is told if it does not.

Strategy: all who are in one of these wait equally long, so the first to enter is the first whose time is over, and one
timer serves them all: it is set to that instant, and if whoever it was for has left by then, to the next one's. To
enter and to leave is an entry in a dict, where a timer for each request costs several times as much.
"""

import asyncio
from typing import Protocol


class Waiter(Protocol):
    """Who waits."""

    def overdue(self) -> None:
        """It has been long enough. Called once, and not after `leave`."""


class TimeoutQueue:
    """Tells whoever has been in it for `wait_s` seconds."""

    __slots__ = ("_loop", "_timer", "_waiting", "wait_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, wait_s: float) -> None:
        self._loop = loop
        self._waiting: dict[Waiter, float] = {}  # until when, in the loop's time; who is due first is first in it
        self._timer: asyncio.TimerHandle | None = None
        self.wait_s = wait_s

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, who: Waiter, now: float) -> None:
        """Wait from now on, in the loop's time; whoever waits already begins anew."""
        self._waiting.pop(who, None)
        self._waiting[who] = due = now + self.wait_s
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._ring)

    def leave(self, who: Waiter) -> None:
        """Wait no longer. Nothing, for one who does not wait."""
        self._waiting.pop(who, None)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            while self._waiting:
                who, due = next(iter(self._waiting.items()))
                if due > now:
                    break
                del self._waiting[who]
                who.overdue()
        finally:  # also if one of them raised: the others wait on
            self._arm()

    def _arm(self) -> None:
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_at(next(iter(self._waiting.values())), self._ring)
