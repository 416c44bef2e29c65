"""`GET /v1/models` and `GET /v1/models/{id}`: what this key may use."""

from typing import Any

from nexus_proxy.core.model import Model
from nexus_proxy.request.context import RequestContext
from nexus_proxy.web.response import Response, json_response


async def list_models(context: RequestContext) -> Response:
    """Return every model that is switched on, priced, and allowed to the key, in the order of their ids."""
    allowed = context.caller.models
    models = [m for m in context.setup.config.models.values() if allowed is None or m.id in allowed]
    models.sort(key=lambda m: m.id)
    return json_response(context.headers, {"object": "list", "data": [_describe(m) for m in models]})


async def retrieve_model(context: RequestContext) -> Response:
    """Return one model. ModelNotFound."""
    model = context.setup.config.find_model(context.caller.models, context.parameter)
    return json_response(context.headers, _describe(model))


def _describe(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": "ai-nexus"}
