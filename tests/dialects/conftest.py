"""Doors with a provider of each dialect: all of them one scripted upstream, or each the built-in one."""

import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.dialects.golden import DIALECTS, PRICE
from tests.dialects.stage import Stage, open_stage
from tests.rig.door import door_inside
from tests.rig.eventually import eventually
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.house import House


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def golden_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One door for all the tests of a module. The model of a dialect is `g-DIALECT`."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with FaultUpstream() as fu:
            provider = {"allow_private": True, "api_key_env": "FU_KEY", "in_flight_max": 2000}
            model = {"price": PRICE, "context": 65536, "max_output": 8192}
            overrides = {
                "providers": {
                    f"g-{dialect}": {"dialect": dialect, "base_url": f"{fu.url}/{dialect}/v1", **provider}
                    for dialect in DIALECTS
                },
                "models": {
                    f"g-{dialect}": {"provider": f"g-{dialect}", "upstream": f"real-{dialect}", **model}
                    for dialect in DIALECTS
                },
            }
            async with door_inside(tmp_path_factory.mktemp("golden"), fu.url, overrides) as door:
                yield House(fu, door, unused.getsockname()[1])
                await eventually(lambda: door.open_holds() == 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One door before the built-in provider of each dialect, for all the tests of a module."""
    async with open_stage(tmp_path_factory.mktemp("stage")) as opened:
        yield opened
