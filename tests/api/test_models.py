"""What a key may use, listed and one by one."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from nexus_proxy.api.models import list_models, retrieve_model
from nexus_proxy.config import Config, load
from nexus_proxy.errors import ModelNotFound
from nexus_proxy.request.context import RequestContext
from nexus_proxy.web.response import Response
from tests.rig.compiled import gives_stand_ins

pytestmark = gives_stand_ins

FIELDS = ["id", "object", "created", "owned_by"]
MODELS = {name: cast(Any, SimpleNamespace(id=name, created=len(name))) for name in ("b", "org/c", "a")}


def context(config: Config, allowed: frozenset[str] | None, model: str = "") -> RequestContext:
    services: Any = SimpleNamespace(setup=SimpleNamespace(config=config), loop=asyncio.get_running_loop())
    incoming: Any = None
    found = RequestContext(services, incoming, "models", model)
    key: Any = SimpleNamespace(models=allowed)
    found.key = key
    return found


def asked(allowed: frozenset[str] | None, model: str = "") -> RequestContext:
    return context(replace(load(None, {}), models=MODELS), allowed, model)


def described(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": len(name), "owned_by": "ai-nexus"}


def json_of(answer: Response) -> Any:
    assert answer.status == 200
    assert "\r\nContent-Type: application/json\r\n" in answer.headers
    return orjson.loads(answer.body)


@pytest.mark.parametrize(
    ("allowed", "names"),
    [(None, ["a", "b", "org/c"]), (frozenset({"org/c", "gone", "a"}), ["a", "org/c"]), (frozenset(), [])],
)
async def test_the_list_has_what_the_key_may_use_in_order(allowed: frozenset[str] | None, names: list[str]) -> None:
    found = json_of(await list_models(asked(allowed)))
    assert found == {"object": "list", "data": [described(name) for name in names]}


async def test_one_model_is_described_as_in_the_list() -> None:
    assert json_of(await retrieve_model(asked(None, "org/c"))) == described("org/c")


@pytest.mark.parametrize(("allowed", "name"), [(None, "d"), (frozenset({"a"}), "b"), (frozenset({"d"}), "d")])
async def test_a_model_that_the_key_may_not_use_is_as_unknown_as_one_that_is_not_there(
    allowed: frozenset[str] | None, name: str
) -> None:
    with pytest.raises(ModelNotFound) as caught:
        await retrieve_model(asked(allowed, name))
    assert (caught.value.param, caught.value.message) == (
        "model",
        "No such model, or this key may not use it. GET /v1/models lists them.",
    )


async def test_models_of_the_catalogue_are_listed_as_clients_expect_them(tmp_path: Path) -> None:
    path = tmp_path / "nexus.toml"
    path.write_text("".join(f'[providers.{name}]\napi_key_env = "K"\n' for name in ("deepseek", "siliconflow-intl")))
    config = load(path, {}, secrets=False)
    listed = json_of(await list_models(context(config, None)))["data"]
    assert [model["id"] for model in listed] == sorted(config.models)
    assert any("/" in model["id"] for model in listed)
    for model in listed:
        assert (model["object"], model["owned_by"], list(model)) == ("model", "ai-nexus", FIELDS)
        assert datetime(2023, 1, 1, tzinfo=UTC) < datetime.fromtimestamp(model["created"], UTC) < datetime.now(UTC)
        assert json_of(await retrieve_model(context(config, None, model["id"]))) == model
