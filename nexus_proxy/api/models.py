"""`GET /v1/models` and `GET /v1/models/{id}`: what this key may use."""

from typing import Any

import orjson
from aiohttp import web

from nexus_proxy.appkeys import VISIT
from nexus_proxy.core.model import Model


async def list_models(request: web.Request) -> web.Response:
    """Return every model that is switched on, priced, and allowed to the key, in the order of their ids."""
    visit = request[VISIT]
    allowed = visit.caller.models
    models = [m for m in visit.parts.config.models.values() if allowed is None or m.id in allowed]
    models.sort(key=lambda m: m.id)
    return _json({"object": "list", "data": [_describe(m) for m in models]})


async def retrieve_model(request: web.Request) -> web.Response:
    """Return one model. ModelNotFound."""
    visit = request[VISIT]
    return _json(_describe(visit.parts.config.find_model(visit.caller.models, request.match_info["id"])))


def _describe(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": "ai-nexus"}


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
