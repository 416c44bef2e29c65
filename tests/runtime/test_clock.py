"""The wall clock's unit."""

import time

from nexus_proxy.runtime.clock import now_ms


def test_it_counts_milliseconds_since_1970() -> None:
    before = time.time()
    assert int(before * 1000) <= now_ms() <= time.time() * 1000 + 1
