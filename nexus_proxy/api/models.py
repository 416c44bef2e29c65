"""`GET /v1/models` and `GET /v1/models/{id}`: what this key may use."""

from typing import Any

from nexus_proxy.core.model import Model
from nexus_proxy.request.context import Visit
from nexus_proxy.web.response import Answer, json_answer


async def list_models(visit: Visit) -> Answer:
    """Return every model that is switched on, priced, and allowed to the key, in the order of their ids."""
    allowed = visit.caller.models
    models = [m for m in visit.parts.config.models.values() if allowed is None or m.id in allowed]
    models.sort(key=lambda m: m.id)
    return json_answer(visit.headers, {"object": "list", "data": [_describe(m) for m in models]})


async def retrieve_model(visit: Visit) -> Answer:
    """Return one model. ModelNotFound."""
    model = visit.parts.config.find_model(visit.caller.models, visit.parameter)
    return json_answer(visit.headers, _describe(model))


def _describe(model: Model) -> dict[str, Any]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": "ai-nexus"}
