"""The operators' listener: `/metrics`, `/healthz`, `/readyz`, and nothing else. A `ListenerRunner` runs it."""

import asyncio

from aiohttp import web

from nexus_proxy.errors import LedgerError, LedgerUnavailable
from nexus_proxy.request.appkeys import SERVICES
from nexus_proxy.request.services import Services

READY_S = 1.0
BODY_BYTES_MAX = 1024  # no path takes a body; aiohttp's default would take 1 MiB of one


def application() -> web.Application:
    """Return the routes; SERVICES must be set on it."""
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    return app


async def _metrics(request: web.Request) -> web.Response:
    # In a thread: to write a thousand series takes longer than the loop may be held.
    body, content_type = await asyncio.to_thread(request.app[SERVICES].metrics.render)
    return web.Response(body=body, headers={"Content-Type": content_type})


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="alive\n")


async def _readyz(request: web.Request) -> web.Response:
    """Tell whether a request could be taken now: 200, or 503 with the reason."""
    reason = await _unready(request.app[SERVICES])
    return web.Response(text=f"{reason or 'ready'}\n", status=503 if reason else 200)


async def _unready(services: Services) -> str | None:
    if services.readiness.shutting_down:
        return "shutting down"
    if not services.ledger.writable:
        return "the ledger cannot commit"
    try:
        async with asyncio.timeout(READY_S):
            await services.reader.ping()
    except (LedgerError, LedgerUnavailable, TimeoutError, OSError) as error:
        return f"the ledger cannot be read ({type(error).__name__})"
    return None
