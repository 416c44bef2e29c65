"""What is asked for and not there: in the same shape as everything else, and through the same chain."""

from aiohttp import web
from aiohttp.typedefs import Handler

from nexus_proxy.errors import MethodNotAllowed, NotFound


async def not_found(request: web.Request) -> web.StreamResponse:
    """Answer every path that is not served."""
    raise NotFound("No such path.")


def only(method: str) -> Handler:
    """Return a handler for every method that a served path does not take."""

    async def method_not_allowed(request: web.Request) -> web.StreamResponse:
        raise MethodNotAllowed(f"This path takes {method} only.", allow=method)

    return method_not_allowed


async def no_continue(request: web.Request) -> None:
    """Say nothing to `Expect`: metering does, once the key and the size are known to be good."""
