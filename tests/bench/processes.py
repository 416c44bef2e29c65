"""The processes of a measurement: how one is started, on which core it runs, and what CPU time it has used.

Strategy: the one that is measured has a core to itself; whatever makes the load shares the other one. A process is
pinned by its threads, since the kernel pins threads.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_TICKS_S = os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def program(module: str, *arguments: str) -> AsyncIterator[tuple[int, int]]:
    """Run a module that prints its port; yields pid and port, and kills it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, cwd=_ROOT
    )
    assert process.stdout is not None
    try:
        yield process.pid, int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


def cores() -> tuple[int, int]:
    """Return the core for what is measured and the core for the load: the same one, if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def pin(pid: int, core: int) -> None:
    """Let all threads that a process has now, and those that they start, run on this core only."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


@contextlib.contextmanager
def pinned_here(core: int) -> Iterator[None]:
    """Run this thread on that core for the length of a block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_us(pid: int) -> int:
    """Return the CPU time that a process has used, user and system, in steps of the kernel's clock (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before it may hold anything
    return (int(fields[11]) + int(fields[12])) * 1_000_000 // _TICKS_S
