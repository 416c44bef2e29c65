"""A real door before the built-in provider, once for each dialect.

Strategy: the provider is a real HTTP server; the door knows it by its configuration alone. What a request must have
cost is computed from the usage object that the provider wrote, at the prices of the configuration's text.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from nexus_proxy.demo.provider import Answer, DemoProvider
from nexus_proxy.demo.shapes import SHAPES
from tests.rig import reckon
from tests.rig.door import DoorInside, door_inside
from tests.rig.eventually import eventually

PRICE = {"input": "0.370001", "cached_input": "0.031", "cache_write": "0.4637", "output": "1.93"}


@dataclass(frozen=True, slots=True)
class Stage:
    """A door, the providers by dialect, and a client of the `openai` SDK, which never tries twice."""

    door: DoorInside
    providers: dict[str, DemoProvider]
    client: AsyncOpenAI

    async def ask(self, dialect: str, prompt: str = "Hello there", **options: Any) -> Any:
        """Ask the dialect's model through the SDK, as a program without types does."""
        create: Any = self.client.chat.completions.create
        messages = options.pop("messages", [{"role": "user", "content": prompt}])
        return await create(model=f"d-{dialect}", messages=messages, **options)

    def sent(self, dialect: str) -> Answer:
        """Return what the dialect's provider sent last."""
        return self.providers[dialect].sent[-1]

    async def is_exact(self, dialect: str, request_id: str, source: str = "reported") -> dict[str, Any]:
        """The request was charged what the provider's last usage object comes to. Return its row."""
        row = await self.door.row(request_id)
        sent = self.sent(dialect)
        assert sent.usage is not None
        assert sent.counts is not None
        assert (row["usage_source"], row["end_state"]) == (source, "complete")
        assert reckon.nano(row["charge"]) == reckon.charge_nano(sent.usage, PRICE)
        assert reckon.nano(row["charge"]) <= reckon.nano(row["hold"])
        counts = (sent.counts.prompt, sent.counts.cached, sent.counts.completion)
        assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == counts
        return row


@contextlib.asynccontextmanager
async def open_stage(directory: Path) -> AsyncIterator[Stage]:
    """Open it. At the end no hold may be open."""
    async with contextlib.AsyncExitStack() as stack:
        providers = {}
        for dialect in SHAPES:
            providers[dialect] = DemoProvider(dialect=dialect, pace_s=0)
            stack.push_async_callback(providers[dialect].stop)
            await providers[dialect].start()
            (directory / f"{dialect}.key").write_text(providers[dialect].api_key, "utf-8")
        overrides = {
            "providers": {
                f"d-{dialect}": {
                    "dialect": dialect,
                    "base_url": provider.base_url,
                    "api_key_file": f"{dialect}.key",
                    "allow_private": True,
                }
                for dialect, provider in providers.items()
            },
            "models": {
                f"d-{dialect}": {
                    "provider": f"d-{dialect}",
                    "upstream": f"{dialect}-chat",
                    "price": PRICE,
                    "context": 32768,
                    "max_output": 4096,
                }
                for dialect in providers
            },
        }
        door = await stack.enter_async_context(door_inside(directory, "http://127.0.0.1:1", overrides))
        client = await stack.enter_async_context(AsyncOpenAI(base_url=door.url, api_key=door.key, max_retries=0))
        yield Stage(door, providers, client)
        await eventually(lambda: door.open_holds() == 0)
