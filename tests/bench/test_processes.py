"""A process counts with its children."""

import subprocess
import sys

from tests.bench.processes import cpu_us, family, pinned_here, rss_bytes

_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = b'x' * 50_000_000; print(1, flush=True); input()"])
child.wait()
"""


def test_what_a_child_uses_is_its_familys() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1\n"
        members = family(parent.pid)
        assert members[0] == parent.pid
        assert len(members) == 2
        assert rss_bytes(parent.pid) > 50_000_000
        assert cpu_us(parent.pid) >= cpu_us(members[1])
        parent.communicate(b"\n")


def test_what_is_started_stays_on_the_core() -> None:
    with pinned_here(0):
        told = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True, check=True
        )
    assert told.stdout == b"{0}\n"
