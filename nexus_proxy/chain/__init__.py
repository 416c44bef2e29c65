"""The product in reading order: what happens to a request, stage by stage.

boundary   takes an id, and turns whatever is raised below into an OpenAI error
auth       who is calling
ratelimit  may they, now
metering   is it sound, what can it cost, and is that set aside durably
forward    the call to the provider; the answer on its way to the client
"""

from collections.abc import Awaitable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from nexus_proxy.chain.auth import auth
from nexus_proxy.chain.boundary import boundary
from nexus_proxy.chain.forward import forward
from nexus_proxy.chain.metering import metering
from nexus_proxy.chain.ratelimit import ratelimit

CHAIN = (boundary, auth, ratelimit, metering)

__all__ = ["CHAIN", "compose", "forward"]


def compose(handler: Handler) -> Handler:
    """Put a handler behind all stages, once: an application does it anew for each request."""
    for stage in reversed(CHAIN):
        handler = _before(handler, stage)
    return handler


def _before(handler: Handler, stage: Middleware) -> Handler:
    def proceed(request: web.Request) -> Awaitable[web.StreamResponse]:
        return stage(request, handler)

    return proceed
