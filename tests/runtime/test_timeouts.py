"""Who waits equally long: each is told at its own instant, and one timer serves them all."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from nexus_proxy.runtime.timeouts import TimeoutQueue


class Loop:
    """Time that stands still until the test moves it, and the timers that were asked for."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.asked = 0

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, told: Callable[[], None]) -> object:
        self.asked += 1
        self.timers.append((due, told))
        return object()

    def advance(self, seconds: float) -> None:
        """Let time pass, and every timer ring at its instant."""
        until = self.now + seconds
        while self.timers and min(self.timers, key=lambda timer: timer[0])[0] <= until:
            timer = min(self.timers, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = until


class Waiter:
    """One who waits, and remembers when it had been too long."""

    def __init__(self, loop: Loop, fault: Exception | None = None) -> None:
        self._loop = loop
        self._fault = fault
        self.told: list[float] = []

    def overdue(self) -> None:
        self.told.append(self._loop.now - 1_000)
        if self._fault is not None:
            raise self._fault


def waiting(loop: Loop) -> TimeoutQueue:
    return TimeoutQueue(cast(Any, loop), 10.0)


def test_each_is_told_at_its_own_instant() -> None:
    loop = Loop()
    deadlines = waiting(loop)
    waiters = [Waiter(loop) for _ in range(5)]
    for waiter in waiters:
        deadlines.enter(waiter, loop.now)
        loop.advance(1)
    loop.advance(100)
    assert [waiter.told for waiter in waiters] == [[10.0], [11.0], [12.0], [13.0], [14.0]]
    assert len(deadlines) == 0
    assert loop.timers == []


def test_who_has_left_is_not_told_and_holds_nobody_up() -> None:
    loop = Loop()
    deadlines = waiting(loop)
    first, second, third = (Waiter(loop) for _ in range(3))
    for waiter in (first, second, third):
        deadlines.enter(waiter, loop.now)
        loop.advance(1)
    deadlines.leave(first)
    deadlines.leave(first)
    deadlines.leave(third)
    loop.advance(100)
    assert (first.told, second.told, third.told) == ([], [11.0], [])


def test_who_enters_again_begins_anew() -> None:
    loop = Loop()
    deadlines = waiting(loop)
    again, other = Waiter(loop), Waiter(loop)
    deadlines.enter(again, loop.now)
    deadlines.enter(other, loop.now)
    loop.advance(4)
    deadlines.enter(again, loop.now)
    loop.advance(100)
    assert (again.told, other.told) == ([14.0], [10.0])


def test_one_timer_serves_all_who_come_and_go_meanwhile() -> None:
    loop = Loop()
    deadlines = waiting(loop)
    for _ in range(1_000):
        waiter = Waiter(loop)
        deadlines.enter(waiter, loop.now)
        loop.advance(0.01)
        deadlines.leave(waiter)
    assert loop.asked == 1
    assert len(deadlines) == 0


def test_one_who_fails_does_not_keep_the_others_waiting() -> None:
    loop = Loop()
    deadlines = waiting(loop)
    failing, other = Waiter(loop, ZeroDivisionError()), Waiter(loop)
    deadlines.enter(failing, loop.now)
    deadlines.enter(other, loop.now)
    with pytest.raises(ZeroDivisionError):
        loop.advance(10)
    loop.advance(0)
    assert (failing.told, other.told) == ([10.0], [10.0])


def test_whoever_leaves_or_enters_while_others_are_told_is_heeded() -> None:
    loop = Loop()
    deadlines = waiting(loop)
    gone, back = Waiter(loop), Waiter(loop)

    class Meddling(Waiter):
        def overdue(self) -> None:
            super().overdue()
            deadlines.leave(gone)
            if len(self.told) == 1:
                deadlines.enter(self, loop.now)

    meddling = Meddling(loop)
    for waiter in (meddling, gone, back):
        deadlines.enter(waiter, loop.now)
    loop.advance(10)
    assert len(loop.timers) == 1
    loop.advance(90)
    assert (meddling.told, gone.told, back.told) == ([10.0, 20.0], [], [10.0])
    assert loop.timers == []
