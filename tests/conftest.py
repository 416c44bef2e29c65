"""Fixtures of the tests that stand before a whole door.

The rig is imported where it is used, so that the tests of the parts do not load the whole.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.rig.compiled import skip_what_does_not_reach
from tests.rig.fault_upstream import FaultUpstream

if TYPE_CHECKING:
    from tests.rig.house import House


def pytest_configure() -> None:
    """Skip what cannot be tested of the compiled form, if that is what runs."""
    skip_what_does_not_reach()


@pytest.fixture
async def fu() -> AsyncIterator[FaultUpstream]:
    """A scripted provider of one's own."""
    async with FaultUpstream() as upstream:
        yield upstream


@pytest.fixture
async def house(tmp_path: Path) -> "AsyncIterator[House]":
    """A door before a scripted provider, for one test."""
    from tests.rig.house import open_house

    async with open_house(tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_house(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[House]":
    """One door for all the tests of a module; they run on the module's loop and leave nothing behind."""
    from tests.rig.house import open_house

    async with open_house(tmp_path_factory.mktemp("house")) as opened:
        yield opened
