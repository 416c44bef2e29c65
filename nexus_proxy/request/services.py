"""Services shared by all requests; the composition root puts them together."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from nexus_proxy.core.control.slots import Slots
from nexus_proxy.ledger.directory import Directory
from nexus_proxy.ledger.protocol import Reader
from nexus_proxy.ledger.writer import Writer
from nexus_proxy.limiter.protocol import Limiter
from nexus_proxy.observe.metrics import Metrics
from nexus_proxy.observe.record import Observer
from nexus_proxy.request.setup import Setup
from nexus_proxy.upstream.supervisor import Supervisor


@dataclass(slots=True)
class Readiness:
    """Whether new requests are taken."""

    shutting_down: bool = False


@dataclass(slots=True)
class Services:
    """What the composition root put together. All of it stays, but `setup` may be replaced for later requests."""

    setup: Setup
    directory: Directory
    drains: Slots
    bodies: Slots  # bytes of request bodies that are held
    large_body: asyncio.Lock  # to be held while one is parsed: in between the loop has its turn
    ledger: Writer
    limiter: Limiter
    logger: FilteringBoundLogger
    loop: asyncio.AbstractEventLoop  # to be asked for costs a call into the kernel each time
    metrics: Metrics
    observers: Sequence[Observer]  # each hears of every request once, when it is over
    reader: Reader
    readiness: Readiness
    supervisor: Supervisor
