"""A door, the provider behind it, and what a request must have left in the ledger.

Strategy: the five outcomes of the failure catalogue as five checks, L0, LR, LX, LE and LO's absence, each against the
upstream's truth and not against our own figures. Timeouts are short, so that nothing has to be waited for.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig import reckon
from tests.rig.door import DoorInside, door_inside
from tests.rig.eventually import eventually
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.raw_client import Response
from tests.rig.settings import merged
from tests.rig.steps import Planner, Received, Script

SHORT = {
    "server": {
        "timeouts": {
            "connect_s": 2.0,
            "first_byte_s": 0.6,
            "silence_s": 0.6,
            "client_headers_s": 1.0,
            "client_body_s": 1.0,
            "client_stalled_s": 1.0,
        }
    }
}


@dataclass(slots=True)
class House:
    """A door and its upstream. `closed_port` is a port of loopback on which nobody listens."""

    fu: FaultUpstream
    door: DoorInside
    closed_port: int
    asked: int = 0

    def tag(self) -> str:
        """Return a tag that no request has had."""
        self.asked += 1
        return f"t{self.asked}"

    async def ask(self, script: Script | Planner | None = None, *headers: str, **members: Any) -> "Asked":
        """Ask for a completion that the upstream answers by the script; read all of the answer."""
        tag = self.tag()
        if script is not None:
            self.fu.scripts[tag] = script
        return Asked(self, tag, await self.door.chat(tag, *headers, **members))

    @contextlib.asynccontextmanager
    async def nothing_happens(self) -> AsyncIterator[None]:
        """L0: within the block no hold is made and the upstream sees nothing."""
        before = (self.door.sql("SELECT count(*) AS n FROM usage"), len(self.fu.received), self.door.account())
        yield
        after = (self.door.sql("SELECT count(*) AS n FROM usage"), len(self.fu.received), self.door.account())
        assert after == before

    def price(self, model: str) -> dict[str, str]:
        """Return a model's price as the configuration has it."""
        return dict(self.door.values["models"][model]["price"])


@dataclass(slots=True)
class Asked:
    """One request that was asked, and its answer."""

    house: House
    tag: str
    answer: Response

    @property
    def received(self) -> Received:
        """What the upstream saw of it."""
        return self.house.fu.one(self.tag)

    async def is_void(self, *, received: int = 1) -> dict[str, Any]:
        """LR: one hold, ended without a charge. Return its row."""
        row = await self.house.door.row(self.answer)
        assert reckon.nano(row["hold"]) > 0
        assert (reckon.nano(row["charge"]), row["usage_source"]) == (0, "none"), row
        assert len(self.house.fu.of(self.tag)) == received
        assert row["status"] == self.answer.status
        return row

    async def is_exact(self, *sources: str) -> dict[str, Any]:
        """LX: one post, exactly the price of the usage that the upstream sent. Return its row."""
        row = await self.house.door.row(self.answer)
        usage = self.received.usage
        assert usage is not None, "the script reports no usage"
        assert reckon.nano(row["charge"]) == reckon.charge_nano(usage, self.house.price(row["model"])), row
        assert row["usage_source"] in (sources or ("reported",)), row
        return row

    async def is_estimate(self) -> dict[str, Any]:
        """LE: one post, estimated, above nothing and not above the hold. Return its row."""
        row = await self.house.door.row(self.answer)
        assert row["usage_source"] == "estimated", row
        assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"]), row
        return row


@contextlib.asynccontextmanager
async def open_house(directory: Path, overrides: Mapping[str, Any] | None = None) -> AsyncIterator[House]:
    """Run a scripted provider and a door before it. At the end no hold may be open."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed_port = unused.getsockname()[1]
        async with (
            FaultUpstream() as fu,
            door_inside(directory, fu.url, merged(SHORT, overrides or {})) as door,
        ):
            yield House(fu, door, closed_port)
            await eventually(lambda: door.open_holds() == 0)
