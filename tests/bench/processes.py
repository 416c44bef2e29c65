"""The processes of a measurement: how one is started, on which core it runs, what CPU time and memory it has used.

Strategy: the one that is measured has a core to itself; whatever makes the load shares the other one. A process is
started on its core, so that every thread and every child of it stays there. A process counts with its children, since a
server may be several.
"""

import asyncio
import contextlib
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CPU_CLOCK = 2  # Linux: what a process used, all threads, ended ones too; such a clock's id is made of the pid


@contextlib.asynccontextmanager
async def program(module: str, *arguments: str, core: int) -> AsyncIterator[tuple[int, int]]:
    """Run a module that prints its port, on that core; yields pid and port, and kills it at the end."""
    with pinned_here(core):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
    assert process.stdout is not None
    try:
        yield process.pid, int(await process.stdout.readline())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def cores() -> tuple[int, int]:
    """Return the core for what is measured and the core for the load: the same one, if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


@contextlib.contextmanager
def pinned_here(core: int) -> Iterator[None]:
    """Run this thread, and what it starts, on that core for the length of a block."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_open_files() -> int:
    """Let this process and what it starts open as many files as the system grants; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:  # it grows meanwhile
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def cpu_ns(pid: int) -> int:
    """Return the CPU time that a process and its children use, user and system."""
    return sum(time.clock_gettime_ns(~member << 3 | _CPU_CLOCK) for member in family(pid))


def rss_bytes(pid: int) -> int:
    """Return the memory that a process and its children have resident."""
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in family(pid))
    return pages * resource.getpagesize()
