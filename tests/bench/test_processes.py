"""A process counts with its children."""

import os
import subprocess
import sys
import threading
import time

from tests.bench.processes import cpu_ns, family, pinned_here, rss_bytes

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
        assert cpu_ns(parent.pid) > cpu_ns(members[1]) > 0
        parent.communicate(b"\n")


def test_threads_that_have_ended_count() -> None:
    before = cpu_ns(os.getpid())
    used: list[int] = []

    def work() -> None:
        while time.thread_time_ns() < 20_000_000:
            pass
        used.append(time.thread_time_ns())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert cpu_ns(os.getpid()) - before >= used[0]


def test_what_is_started_stays_on_the_core() -> None:
    with pinned_here(0):
        told = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], capture_output=True, check=True
        )
    assert told.stdout == b"{0}\n"
