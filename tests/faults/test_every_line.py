"""E10: an exception at any line between the hold and the settlement leaves no hold open.

Strategy: a trace function raises at the n-th line that runs in the stages that hold money or spend it, for n = 1, 2, 3…
until a request gets through. Whatever broke, the hold has ended, once, and the door serves the next request.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.rig.answers import Answer
from tests.rig.eventually import eventually
from tests.rig.house import open_house

PLACES = ("chain/metering.py", "chain/forward.py", "upstream/exchange.py", "ledger/reservation.py")
STRIDE = 1


class Planted(Exception):
    """What is raised: nothing in the program knows it."""


class Bomb:
    """A trace function that raises once, at the n-th line."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(PLACES):
            return None
        if event == "line" and not self.where:
            self.left -= 1
            if self.left == 0:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise Planted(self.where)
        return self


@contextmanager
def armed(bomb: Bomb) -> Iterator[None]:
    before = sys.gettrace()
    sys.settrace(bomb)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_e10_an_exception_at_any_line_leaves_no_hold_open(tmp_path: Path, stream: bool) -> None:
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
            left = len(wrong)
            try:
                await eventually(lambda: house.door.open_holds() <= left, timeout_s=1.2)
            except TimeoutError:
                wrong.append(f"{bomb.where}: a hold is open")
            at += STRIDE
        assert wrong == [], at
        assert at > 50, "the bomb never went off where it matters"
        assert (await house.door.chat("after")).status == 200
