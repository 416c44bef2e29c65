"""A request keeps what it began with."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from nexus_proxy.request.context import RequestContext
from tests.rig.compiled import gives_stand_ins

pytestmark = gives_stand_ins


async def test_a_request_keeps_the_setup_with_which_it_began() -> None:
    before, after = object(), object()
    services: Any = SimpleNamespace(setup=before, loop=asyncio.get_running_loop())
    earlier = RequestContext(services, cast(Any, None), "completions")
    services.setup = after
    later = RequestContext(services, cast(Any, None), "completions")
    assert earlier.setup is before
    assert later.setup is after


async def test_every_request_has_an_id_of_its_own_in_its_headers() -> None:
    services: Any = SimpleNamespace(setup=None, loop=asyncio.get_running_loop())
    contexts = [RequestContext(services, cast(Any, None), "models") for _ in range(100)]
    assert len({context.request_id for context in contexts}) == 100
    assert all(context.request_id in context.headers for context in contexts)
