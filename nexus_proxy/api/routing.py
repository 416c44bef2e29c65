"""Which handler a request is for, by its method and path.

Strategy: aiohttp's dispatcher reads the path (an id may stand in it raw or escaped); what it finds nothing for is a
handler too, so that everything goes through the same chain and is answered in the same shape.
"""

from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from nexus_proxy.errors import MethodNotAllowed, NexusError, NoPath, NotFound, NoTunnel
from nexus_proxy.request.context import Handler, RequestContext
from nexus_proxy.web.response import Reply


class Found(NamedTuple):
    """`route` is None where nothing is served; `parameter` is what the path has in the place of `{parameter}`."""

    handler: Handler
    route: str | None = None
    parameter: str = ""


class Routing:
    """`compose` puts a handler behind the chain."""

    def __init__(self, compose: Callable[[Handler], Handler]) -> None:
        self._compose = compose
        self._dispatcher = web.UrlDispatcher()
        self._handlers: dict[str, Handler] = {}

    def add(self, method: str, path: str, route: str, handler: Handler) -> None:
        """Serve a method of a path under that name."""
        self._handlers[route] = self._compose(handler)
        self._dispatcher.add_resource(path, name=route).add_route(method, _never)

    async def find(self, request: web.Request) -> Found:
        """Return who answers the request."""
        match = await self._dispatcher.resolve(request)
        if match.http_exception is not None:
            return Found(self._compose(_refusing(_refusal(request, match.http_exception))))
        name = match.route.name
        assert name is not None
        return Found(self._handlers[name], name, match.get("parameter", ""))


def _refusal(request: web.Request, error: web.HTTPException) -> NexusError:
    if request.method == "CONNECT":
        return NoTunnel("This is no proxy for connections.", allow="GET, POST")
    if not request.path.startswith("/"):
        return NoPath("No such path.")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"This path takes {allow} only.", allow=allow)
    return NotFound("No such path.")


def _refusing(error: NexusError) -> Handler:
    async def refuse(context: RequestContext) -> Reply:
        raise error

    return refuse


async def _never(request: web.Request) -> web.StreamResponse:
    raise AssertionError("the dispatcher is only asked")
