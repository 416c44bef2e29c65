"""Threads that a test holds back."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest


class Withheld:
    """`asyncio.to_thread`, but nothing begins before `go` is set. `asked` counts what was to be begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        self.asked = 0
        self._to_thread = asyncio.to_thread
        monkeypatch.setattr(asyncio, "to_thread", self._begin)

    async def _begin(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.asked += 1
        await self.go.wait()
        return await self._to_thread(function, *arguments)
