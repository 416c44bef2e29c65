"""The provider's paced streams are as many that have nothing to do with each other."""

import time
from typing import cast

from tests.bench.answers import EVENTS_A_SECOND
from tests.bench.upstream import FastUpstream, Pacer


class _Stream:
    """A stream of one event and its end: it notes when each was wanted of it."""

    def __init__(self) -> None:
        self.steps_ns: list[int] = []

    def step(self) -> bool:
        self.steps_ns.append(time.monotonic_ns())
        return len(self.steps_ns) < 2


async def test_streams_that_begin_at_once_do_not_march_in_step() -> None:
    pacer, period_ns = Pacer(), 1_000_000_000 // EVENTS_A_SECOND
    before_ns = time.monotonic_ns()
    for _ in range(100):
        pacer.begin(cast(FastUpstream, _Stream()))
    due_ns = [due_ns - before_ns for due_ns, *_ in pacer._due]
    after_ns = time.monotonic_ns() - before_ns
    assert min(due_ns) >= 0
    assert max(due_ns) <= after_ns + period_ns
    for part in range(
        4
    ):  # a quarter of a period each; by chance about 25, and by the chance that is used always as many
        assert sum(part * period_ns <= 4 * (due - after_ns) < (part + 1) * period_ns for due in due_ns) > 10


async def test_a_stream_has_its_events_a_period_apart() -> None:
    pacer, stream = Pacer(), _Stream()
    pacer.begin(cast(FastUpstream, stream))
    (first_due_ns, *_) = pacer._due[0]
    while not stream.steps_ns:
        pacer._tick()
    assert stream.steps_ns[0] >= first_due_ns
    assert [due_ns for due_ns, *_ in pacer._due] == [first_due_ns + 1_000_000_000 // EVENTS_A_SECOND]
    while len(stream.steps_ns) < 2:
        pacer._tick()
    assert not pacer._due
