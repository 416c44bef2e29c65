"""Waiting for what nobody announces: a process that comes up, a row in a file that another process writes."""

import asyncio
from collections.abc import Awaitable, Callable

EVERY_S = 0.02


async def eventually(condition: Callable[[], bool | Awaitable[bool]], timeout_s: float = 10) -> None:
    """Return as soon as the condition holds. TimeoutError if it never does."""
    async with asyncio.timeout(timeout_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(EVERY_S)
