"""E10: an exception at any await or callback between the hold and the settlement leaves no hold open.

Strategy: a trace function raises at the n-th time that the conduct of a request goes on after an await, is called back
by its provider's connection, or takes a step of its own, for n = 1, 2, 3… until a request gets through. Whatever broke,
the hold has ended, the client is not left waiting, and the door serves the next request.
"""

import asyncio
import dis
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nexus_proxy.upstream import exchange
from tests.rig.answers import Answer
from tests.rig.compiled import is_compiled
from tests.rig.eventually import eventually
from tests.rig.house import open_house

PLACES = ("chain/forward.py", "upstream/exchange.py")
STEPS = ("_dial", "_send", "_settle_up", "_seen", "_settle", "_answer", "_close_stream", "_deliver", "_open")


class Planted(Exception):
    """What is raised: nothing in the program knows it."""


class Bomb:
    """A trace function that raises once, at the n-th place."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""
        self.next: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(PLACES):
            return None
        if event == "call":
            resumed = bool(frame.f_code.co_flags & inspect.CO_COROUTINE) and frame.f_lasti > _start(frame)
            name = frame.f_code.co_name
            self.next = frame if resumed or name.startswith("on_") or name in STEPS else None
        elif event == "line" and self.next is frame and not self.where:
            self.next = None
            self.left -= 1
            if self.left == 0:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise Planted(self.where)
        return self


def _start(frame: FrameType) -> int:
    """Return where a coroutine's frame stands before it has run: at its RETURN_GENERATOR and RESUME."""
    return next(i.offset for i in dis.get_instructions(frame.f_code) if i.opname == "RESUME")


@contextmanager
def armed(bomb: Bomb) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(bomb)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.skipif(is_compiled(exchange), reason="what is compiled cannot be traced")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_e10_an_exception_at_any_await_leaves_no_hold_open(tmp_path: Path, stream: bool) -> None:
    answer, wrong, at = Answer(words=2), [], 1
    async with open_house(tmp_path) as house:
        house.fu.planner = answer.script
        while True:
            bomb, tag = Bomb(at), house.tag()
            try:
                with armed(bomb):
                    async with asyncio.timeout(3):
                        await house.door.chat(tag, stream=stream)
            except (ConnectionError, TimeoutError) as fault:
                if isinstance(fault, TimeoutError):
                    wrong.append(f"{bomb.where}: the client waits for ever")
            if not bomb.where:
                break
            try:
                await eventually(lambda: house.door.open_holds() <= len(wrong), timeout_s=1.2)
            except TimeoutError:
                wrong.append(f"{bomb.where}: a hold is open")
            at += 1
        assert wrong == [], at
        assert at > 5, "the bomb never went off where it matters"
        assert (await house.door.chat("after")).status == 200
