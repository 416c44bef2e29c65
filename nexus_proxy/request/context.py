"""One request on its way through the chain.

Strategy: each stage of the chain writes its own fields of the context, and only later stages read them.
"""

from collections.abc import Awaitable, Callable

from nexus_proxy.core.model import Model
from nexus_proxy.core.request.chat import Outgoing
from nexus_proxy.ledger.directory import Key
from nexus_proxy.ledger.hold import OpenHold
from nexus_proxy.request.services import Services
from nexus_proxy.upstream.pool import Upstream
from nexus_proxy.web.incoming import IncomingRequest
from nexus_proxy.web.response import Reply, first_headers, new_request_id


class Call:
    """What metering hands to forward. Who takes it (`taken`) settles the hold and gives its slots back."""

    __slots__ = ("model", "open_hold", "taken", "upstream")

    def __init__(self, model: Model, upstream: Upstream, open_hold: OpenHold) -> None:
        self.model = model
        self.upstream = upstream
        self.open_hold = open_hold
        self.taken = False


class RequestContext:
    """One request. The fields from `key` on are the stages', in their order."""

    __slots__ = (
        "answering",
        "call",
        "headers",
        "incoming",
        "key",
        "model",
        "outgoing",
        "parameter",
        "request_id",
        "route",
        "services",
        "setup",
        "started",
    )

    def __init__(self, services: Services, incoming: IncomingRequest, route: str | None, parameter: str = "") -> None:
        self.services = services
        self.setup = services.setup  # its own from here on, whatever is set up meanwhile
        self.incoming = incoming
        self.route = route  # the name of what is asked for, see COMPLETIONS; None serves an error
        self.parameter = parameter  # what the path says beside the route
        self.request_id = new_request_id()
        self.started = services.loop.time()
        self.headers = first_headers(self.request_id)  # for the answer, whichever stage makes it
        # auth
        self.key: Key | None = None
        # metering
        self.model: Model | None = None
        self.outgoing: Outgoing | None = None  # until it is taken: with its body, it is large
        self.call: Call | None = None
        # forward
        self.answering = False  # the head of an answer is out: there can be no other

    @property
    def caller(self) -> Key:
        """The key, behind auth and on a route that is served: there is one."""
        assert self.key is not None
        return self.key


# The name of the route that the whole chain is for. What is served has a name; a route without one serves an error.
COMPLETIONS = "completions"

Handler = Callable[[RequestContext], Awaitable[Reply]]
