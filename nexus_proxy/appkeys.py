"""What is kept on the application and on a request, and under which keys: one of each.

Strategy: a look-up on aiohttp's mappings costs more than most of what a stage does, so it is one for the application's
parts and one for the request's visit. Each stage of the chain writes its own fields of the visit, and only later
stages read them.
"""

import asyncio
from dataclasses import dataclass

from aiohttp import web
from structlog.typing import FilteringBoundLogger

from nexus_proxy.config import Config
from nexus_proxy.core.model import Model
from nexus_proxy.core.places import Places
from nexus_proxy.core.requests import Outgoing
from nexus_proxy.ledger.directory import Directory, Key
from nexus_proxy.ledger.protocol import Reader
from nexus_proxy.ledger.reservation import Reservation
from nexus_proxy.ledger.writer import Writer
from nexus_proxy.limiter.protocol import Limiter
from nexus_proxy.metrics import Metrics
from nexus_proxy.upstream.provider import Upstream
from nexus_proxy.upstream.supervisor import Supervisor


@dataclass(slots=True)
class Readiness:
    """Whether new requests are taken."""

    shutting_down: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """What the composition root put together."""

    config: Config
    directory: Directory
    drains: Places
    bodies: Places  # bytes of request bodies that are held
    ledger: Writer
    limiter: Limiter
    logger: FilteringBoundLogger
    loop: asyncio.AbstractEventLoop  # to be asked for costs a call into the kernel each time
    metrics: Metrics
    reader: Reader
    readiness: Readiness
    supervisor: Supervisor
    upstreams: dict[str, Upstream]


@dataclass(slots=True)
class Call:
    """What metering hands to forward. Who takes it (`taken`) settles the reservation and gives the places back."""

    model: Model
    upstream: Upstream
    reservation: Reservation
    taken: bool = False


@dataclass(slots=True)
class Visit:
    """One request on its way through the chain."""

    # boundary
    parts: Parts
    request_id: str
    started: float  # the loop's time
    headers: dict[str, str]  # for the response, whichever stage makes it
    route: str | None  # the name of what is asked for, see COMPLETIONS
    # auth
    key: Key | None = None
    # metering
    model: Model | None = None
    outgoing: Outgoing | None = None  # until it is taken: with its body, it is large
    call: Call | None = None

    @property
    def caller(self) -> Key:
        """The key, behind auth and on a route that is served: there is one."""
        assert self.key is not None
        return self.key


PARTS = web.AppKey("PARTS", Parts)
VISIT = web.RequestKey("VISIT", Visit)

# The name of the route that the whole chain is for. What is served has a name; a route without one serves an error.
COMPLETIONS = "completions"
