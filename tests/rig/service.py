"""Programs that a test needs and pip cannot bring: Prometheus and the like.

Strategy: where one is missing, its tests are skipped and say what to install; where NEXUS_TEST_REQUIRED names it, as it
does in `.ci/run`, they fail instead, so that nobody takes a skipped test for a passed one.
"""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """Return the program's path. Skips the test, or fails it, if there is none."""
    path = shutil.which(name)
    if path is None:
        missing = f"{name} is not installed: apt-get install {package}"
        if package in os.environ.get("NEXUS_TEST_REQUIRED", "").split():
            pytest.fail(missing)
        pytest.skip(missing)
    return path
