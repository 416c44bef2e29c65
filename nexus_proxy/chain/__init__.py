"""The product in reading order: what happens to a request, stage by stage.

boundary   turns whatever is raised below into an OpenAI error
auth       who is calling
ratelimit  may they, now
metering   is it sound, what can it cost, and is that set aside durably
forward    the call to the provider; the answer on its way to the client
"""

from collections.abc import Awaitable, Callable

from nexus_proxy.answers import Reply
from nexus_proxy.chain.auth import auth
from nexus_proxy.chain.boundary import boundary
from nexus_proxy.chain.forward import forward
from nexus_proxy.chain.metering import metering
from nexus_proxy.chain.ratelimit import ratelimit
from nexus_proxy.visit import Handler, Visit

Stage = Callable[[Visit, Handler], Awaitable[Reply]]

CHAIN: tuple[Stage, ...] = (boundary, auth, ratelimit, metering)

__all__ = ["CHAIN", "compose", "forward"]


def compose(handler: Handler) -> Handler:
    """Put a handler behind all stages."""
    for stage in reversed(CHAIN):
        handler = _behind(stage, handler)
    return handler


def _behind(stage: Stage, handler: Handler) -> Handler:
    def proceed(visit: Visit) -> Awaitable[Reply]:
        return stage(visit, handler)

    return proceed
