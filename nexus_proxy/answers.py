"""The one shape in which anything that went wrong is told to a client."""

import secrets

import orjson
from aiohttp import web

from nexus_proxy.clock import now_ms
from nexus_proxy.core.money import ceil_div
from nexus_proxy.errors import MethodNotAllowed, NexusError


def new_request_id() -> str:
    """Return an id that nobody can guess and that sorts by time: milliseconds, then 80 random bits."""
    return f"req_{now_ms():012x}{secrets.token_hex(10)}"


def first_headers(request_id: str) -> dict[str, str]:
    """Return what every response has. Without `server` aiohttp would name itself, Python, and both versions."""
    return {"x-request-id": request_id, "server": "nexus-proxy"}


def error_response(error: NexusError, headers: dict[str, str]) -> web.Response:
    """Return the response for an error. `headers` are added; they hold `x-request-id`."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    response = web.Response(
        body=orjson.dumps({"error": body}), status=error.status, content_type="application/json", headers=headers
    )
    if not error.retry:
        response.headers["x-should-retry"] = "false"
    if error.retry_after_ns is not None:
        response.headers["retry-after"] = str(ceil_div(error.retry_after_ns, 1_000_000_000))
        response.headers["retry-after-ms"] = str(ceil_div(error.retry_after_ns, 1_000_000))
    if isinstance(error, MethodNotAllowed) and error.allow:
        response.headers["allow"] = error.allow
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    if error.close:
        response.force_close()
    return response
