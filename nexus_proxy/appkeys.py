"""Every key under which something is kept on the application or on a request, and nothing else.

Each stage of the chain writes its own keys on the request, and only later stages read them.
"""

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


@dataclass(slots=True)
class Call:
    """What metering hands to forward. Who takes it (`taken`) settles the reservation and gives the places back."""

    model: Model
    outgoing: Outgoing
    upstream: Upstream
    reservation: Reservation
    taken: bool = False


CONFIG = web.AppKey("CONFIG", Config)
DIRECTORY = web.AppKey("DIRECTORY", Directory)
DRAINS = web.AppKey("DRAINS", Places)
BODIES = web.AppKey("BODIES", Places)  # bytes of request bodies that are held
LEDGER = web.AppKey("LEDGER", Writer)
LIMITER = web.AppKey("LIMITER", Limiter)
LOGGER = web.AppKey("LOGGER", FilteringBoundLogger)
METRICS = web.AppKey("METRICS", Metrics)
READER = web.AppKey("READER", Reader)
READINESS = web.AppKey("READINESS", Readiness)
SUPERVISOR = web.AppKey("SUPERVISOR", Supervisor)
UPSTREAMS = web.AppKey("UPSTREAMS", dict[str, Upstream])

# boundary
REQUEST_ID = web.RequestKey("REQUEST_ID", str)
STARTED = web.RequestKey("STARTED", float)  # the loop's time
HEADERS = web.RequestKey("HEADERS", dict[str, str])  # for the response, whichever stage makes it
# auth
KEY = web.RequestKey("KEY", Key)
# metering
MODEL = web.RequestKey("MODEL", Model)
CALL = web.RequestKey("CALL", Call)

# The name of the route that the whole chain is for. What is served has a name; a route without one serves an error.
COMPLETIONS = "completions"
