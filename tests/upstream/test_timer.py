"""The clock of an exchange, with a loop whose time is the test's."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from nexus_proxy.config import Timeouts
from nexus_proxy.core.wire.outcome import Cause
from nexus_proxy.runtime.timeouts import TimeoutQueue
from nexus_proxy.upstream.timer import PROGRESS_S, STOPPED_S, ExchangeTimer

TIMEOUTS = Timeouts(first_byte_s=10.0, silence_s=20.0, exchange_s=100.0)


class Timer:
    """A timer that can be cancelled."""

    def __init__(self, due: float, told: Callable[[], None]) -> None:
        self.due, self.told, self.cancelled = due, told, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, told: Callable[[], None]) -> Timer:
        timer = Timer(due, told)
        self.timers.append(timer)
        return timer

    @property
    def armed(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def advance(self, seconds: float) -> None:
        """Let time pass, and every timer ring at its instant."""
        until = self.now + seconds
        while due := [timer for timer in self.armed if timer.due <= until]:
            timer = min(due, key=lambda each: each.due)
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.told()
        self.now = until

    def jump(self, seconds: float) -> None:
        """Let time pass while nothing runs, as for a process that was stopped; then what is due rings."""
        self.now += seconds
        for timer in self.armed:
            if timer.due <= self.now:
                self.timers.remove(timer)
                timer.told()


class Scene:
    """A timer, and what it said and when."""

    def __init__(self, timeouts: Timeouts = TIMEOUTS) -> None:
        self.loop = Loop()
        self.first_bytes = TimeoutQueue(cast(Any, self.loop), timeouts.first_byte_s)
        self.due: list[tuple[Cause, float]] = []
        self.progress: list[float] = []
        self.timer = ExchangeTimer(
            cast(Any, self.loop),
            timeouts,
            self.first_bytes,
            on_due=lambda cause: self.due.append((cause, self.loop.now - 1_000)),
            on_progress=lambda: self.progress.append(self.loop.now - 1_000),
        )


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_is_due_before_the_request_is_out(scene: Scene) -> None:
    scene.timer.pause()
    scene.timer.resume()
    scene.loop.advance(1_000)
    assert (scene.due, scene.loop.armed) == ([], [])


def test_b8_a_first_byte_that_does_not_come(scene: Scene) -> None:
    scene.timer.start()
    scene.loop.advance(50)
    assert scene.due == [(Cause.LATE, 10.0)]


def test_b8_the_first_byte_is_waited_for_without_a_timer_of_ones_own(scene: Scene) -> None:
    scene.timer.start()
    assert len(scene.first_bytes) == 1
    scene.timer.begin()
    assert len(scene.first_bytes) == 0
    scene.timer.start()  # as on another connection, for one that was stale
    scene.timer.start()
    scene.timer.end()
    assert len(scene.first_bytes) == 0


def test_b8_a_process_that_was_stopped_reads_the_first_byte_first(scene: Scene) -> None:
    scene.timer.start()
    scene.loop.jump(60)
    assert scene.due == []
    scene.loop.advance(STOPPED_S)
    assert scene.due == [(Cause.LATE, 60 + STOPPED_S)]


def test_an_exchange_may_have_less_time_than_its_first_byte() -> None:
    scene = Scene(Timeouts(first_byte_s=10.0, exchange_s=7.0))
    scene.timer.start()
    scene.loop.advance(50)
    assert scene.due == [(Cause.TOO_LONG, 7.0)]


def test_b22_an_answer_that_falls_silent(scene: Scene) -> None:
    scene.timer.start()
    scene.loop.advance(4)
    scene.timer.heard_at = scene.loop.now
    scene.timer.begin()
    scene.loop.advance(15)
    scene.timer.heard_at = scene.loop.now
    scene.loop.advance(60)
    assert scene.due == [(Cause.SILENT, 39.0)]


def test_an_exchange_that_takes_too_long_though_it_talks(scene: Scene) -> None:
    scene.timer.start()
    scene.timer.begin()
    for _ in range(30):
        scene.timer.heard_at = scene.loop.now
        if not scene.due:
            scene.loop.advance(5)
    assert scene.due == [(Cause.TOO_LONG, 100.0)]
    assert len(scene.progress) == 100 / PROGRESS_S


def test_progress_is_due_at_the_beginning_and_then_every_few_seconds(scene: Scene) -> None:
    scene.timer.start()
    scene.loop.advance(2)
    scene.timer.heard_at = scene.loop.now
    scene.timer.begin()
    scene.loop.advance(12)
    assert scene.progress == [2.0, 2 + PROGRESS_S, 2 + 2 * PROGRESS_S]


def test_c6_a_paused_provider_is_not_silent_and_has_its_time_again_afterwards(scene: Scene) -> None:
    scene.timer.start()
    scene.timer.begin()
    scene.timer.pause()
    scene.loop.advance(60)
    assert scene.due == []
    scene.timer.resume()
    scene.loop.advance(30)
    assert scene.due == [(Cause.SILENT, 80.0)]


@pytest.mark.parametrize(("until", "due_s"), [(1_007.0, 7.0), (None, 100.0)])
def test_c4_a_drain_ends_in_its_own_time_or_in_the_exchanges(scene: Scene, until: float | None, due_s: float) -> None:
    scene.timer.start()
    scene.timer.begin()
    scene.timer.drain(until)
    while not scene.due:
        scene.timer.heard_at = scene.loop.now
        scene.loop.advance(1)
    cause = Cause.ABANDONED if until else Cause.TOO_LONG
    assert scene.due == [(cause, due_s)]


def test_d21_a_process_that_was_stopped_hears_first_what_came_meanwhile(scene: Scene) -> None:
    scene.timer.start()
    scene.timer.begin()
    scene.loop.jump(60)
    assert scene.due == []
    scene.timer.heard_at = scene.loop.now  # it had come
    scene.loop.advance(STOPPED_S)
    assert scene.due == []
    scene.loop.advance(30)
    assert scene.due == [(Cause.SILENT, 80.0)]


def test_a_fault_in_the_journal_leaves_the_clock_running(scene: Scene) -> None:
    scene.timer.start()
    scene.timer.begin()

    def fail() -> None:
        raise ZeroDivisionError

    scene.timer._on_progress = fail
    with pytest.raises(ZeroDivisionError):
        scene.loop.advance(PROGRESS_S)
    scene.timer._on_progress = lambda: None
    scene.loop.advance(30)
    assert scene.due == [(Cause.SILENT, 20.0)]


def test_after_its_end_it_is_silent(scene: Scene) -> None:
    scene.timer.start()
    scene.timer.begin()
    scene.timer.end()
    scene.loop.advance(1_000)
    assert (scene.due, scene.progress) == ([], [0.0])
