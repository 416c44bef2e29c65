"""The parts of the demo, started in order and taken down in reverse: provider, configuration file, door, account, key.

Strategy: nothing is faked but the model. The configuration is a file that is read as any other, the account is made
over the admin socket, and the ledger is a file that anybody can open meanwhile.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from nexus_proxy.admin.socket import call
from nexus_proxy.config import load
from nexus_proxy.demo.provider import DemoProvider
from nexus_proxy.runtime.clock import now_ms
from nexus_proxy.server import Server

MODEL: Final = "demo-chat"
ACCOUNT: Final = "demo"
DOLLARS: Final = "5.00"
PRICES: Final[Mapping[str, str]] = MappingProxyType({"input": "0.50", "cached_input": "0.05", "output": "2.00"})
SYSTEM: Final[Mapping[str, str]] = MappingProxyType({"role": "system", "content": "You are a friendly assistant."})

_CONFIG: Final = """\
# Written by `nexus-proxy demo`; every other verb works with it while the demo serves.
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"

[ledger]
url = "sqlite:nexus.db"

[billing]
currency = "USD"

[plans.demo]
rung = true
rpm = 600

[providers.demo]
dialect = "{dialect}"
base_url = "{base_url}"
api_key_file = "provider-key"
allow_private = true

[models."{model}"]
provider = "demo"
upstream = "{model}"
price = {{ input = "{input}", cached_input = "{cached_input}", output = "{output}" }}
context = 32768
max_output = 4096
created = {created}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the showing works with. The door serves as long as the scene is open."""

    provider: DemoProvider
    door: Server
    config_path: Path
    ledger_path: Path
    key: str

    @property
    def base_url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.door.port}/v1"


@contextlib.asynccontextmanager
async def scene(*, dialect: str = "openai", pace_s: float = 0.02) -> AsyncIterator[Scene]:
    """Open the scene on free ports and in a directory of its own, which is removed in the end."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nexus-demo-")))
        provider = DemoProvider(dialect=dialect, pace_s=pace_s, warm=[dict(SYSTEM)])
        stack.push_async_callback(provider.stop)
        await provider.start()
        config_path = directory / "nexus.toml"
        (directory / "provider-key").write_text(provider.api_key, "utf-8")  # worth nothing beyond this demo
        written = _CONFIG.format(
            dialect=dialect, base_url=provider.base_url, model=MODEL, created=now_ms() // 1000, **PRICES
        )
        config_path.write_text(written, "utf-8")
        config = load(config_path, {})
        door = Server(config)
        stack.push_async_callback(door.stop)
        await door.start()

        async def admin(verb: str, **arguments: Any) -> Any:
            return await asyncio.to_thread(call, config.ledger.path, verb, arguments)

        await admin("account_create", account=ACCOUNT)
        await admin("topup", account=ACCOUNT, amount=DOLLARS, external_id="demo-1", note="a few dollars to try it with")
        key = (await admin("key_create", account=ACCOUNT, name="demo"))["key"]
        yield Scene(provider, door, config_path, config.ledger.path, key)
