"""The real `openai` SDK, unmodified, in front of a whole door: sync and async.

Strategy: the SDK is given a base URL and a key and nothing else. The sync client runs in a thread, since the door runs
on this loop.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from tests.rig.answers import Answer, chunks
from tests.rig.house import House, open_house
from tests.rig.raw_client import get
from tests.rig.settings import PRICES
from tests.rig.steps import Reset, error, sse_head

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello!"}]
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sdk_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    model = {
        "provider": "p-openai",
        "upstream": "slashed",
        "price": PRICES["openai"],
        "context": 4096,
        "max_output": 512,
    }
    async with open_house(tmp_path_factory.mktemp("sdk"), {"models": {"org/slashed": model}}) as house:
        yield house


def sync_client(house: House, key: str | None = None, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=house.door.url, api_key=key or house.door.key, **options)


def async_client(house: House, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=house.door.url, api_key=key or house.door.key, **options)


async def test_async_chat_and_its_charge(sdk_house: House) -> None:
    async with async_client(sdk_house) as client:
        answer = await client.chat.completions.create(model="m-openai", messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == 35
    assert answer._request_id
    row = await sdk_house.door.row(answer._request_id)
    assert row["completion_tokens"] == 10


@pytest.mark.parametrize("asked", [True, False, None], ids=["true", "false", "absent"])
async def test_async_stream(sdk_house: House, asked: bool | None) -> None:
    options: dict[str, Any] = {} if asked is None else {"stream_options": {"include_usage": asked}}
    async with async_client(sdk_house) as client:
        stream = await client.chat.completions.create(model="m-openai", messages=HELLO, stream=True, **options)
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith("wörd 0 wörd 1")
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [usage.total_tokens for usage in usages] == ([35] if asked else [])
    assert all(chunk.choices for chunk in chunks[:-1])
    assert bool(chunks[-1].choices) is (not asked)


async def test_sync_chat_stream_and_models(sdk_house: House) -> None:
    def work() -> None:
        with sync_client(sdk_house) as client:
            answer = client.chat.completions.create(model="m-deepseek", messages=HELLO, temperature=0.7, max_tokens=64)
            assert answer.choices[0].finish_reason == "stop"
            chunks = list(client.chat.completions.create(model="m-moonshot", messages=HELLO, stream=True))
            assert chunks[-1].choices[0].finish_reason == "stop"
            ids = [model.id for model in client.models.list()]
            assert {"m-openai", "m-qwen", "org/slashed"} <= set(ids)
            assert client.models.retrieve("m-qwen").owned_by == "ai-nexus"
            assert client.models.retrieve("org/slashed").id == "org/slashed"
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("no-such")

    await asyncio.to_thread(work)


async def test_an_id_with_a_slash_raw_and_encoded(sdk_house: House) -> None:
    for path in ("/v1/models/org/slashed", "/v1/models/org%2Fslashed", "/v1/models/org%2fslashed"):
        answer = await sdk_house.door.raw(get(path, sdk_house.door.key))
        assert answer.json["id"] == "org/slashed"
    async with async_client(sdk_house) as client:
        assert (await client.chat.completions.create(model="org/slashed", messages=HELLO)).choices


async def test_tools_are_passed_through(sdk_house: House) -> None:
    async with async_client(sdk_house) as client:
        await client.chat.completions.create(
            model="m-openai", messages=HELLO, tools=TOOLS, tool_choice="auto", user="tools", seed=7
        )
    sent = sdk_house.fu.one("tools").json
    assert (sent["tools"], sent["tool_choice"], sent["seed"]) == (TOOLS, "auto", 7)


async def test_errors_are_the_sdks_own(sdk_house: House) -> None:
    empty = await sdk_house.door.mint("sdk-empty", topup="0")
    async with async_client(sdk_house, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as wrong_key:
            await client.with_options(api_key="sk-ai-nexus-wrong").chat.completions.create(
                model="m-openai", messages=HELLO
            )
        assert wrong_key.value.code == "invalid_api_key"
        with pytest.raises(openai.APIStatusError) as no_money:
            await client.with_options(api_key=empty).chat.completions.create(model="m-openai", messages=HELLO)
        assert (no_money.value.status_code, no_money.value.code) == (402, "insufficient_balance")
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-17", messages=HELLO)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as hot:
            await client.chat.completions.create(model="m-openai", messages=HELLO, temperature=3)
        assert (hot.value.param, hot.value.type) == ("temperature", "invalid_request_error")


async def test_the_eleventh_request_of_a_free_minute_is_a_rate_limit_error(sdk_house: House) -> None:
    key = await sdk_house.door.mint("sdk-free", plan=None, topup="1.00")
    async with async_client(sdk_house, key, max_retries=0) as client:
        for _ in range(10):
            await client.chat.completions.create(model="m-openai", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="m-openai", messages=HELLO)
    assert limited.value.code == "rate_limit_exceeded"
    assert 0 < int(limited.value.response.headers["retry-after"]) <= 60
    assert 0 < int(limited.value.response.headers["retry-after-ms"]) <= 60_000


async def test_c11_e3_the_sdks_own_retries_are_requests_of_their_own(sdk_house: House) -> None:
    key = await sdk_house.door.mint("sdk-retry")
    left = [error(503, message="busy"), error(429, message="busy")]
    sdk_house.fu.scripts["again"] = lambda received: left.pop() if left else Answer().script(received)
    async with async_client(sdk_house, key, max_retries=2) as client:
        await client.chat.completions.create(model="m-openai", messages=HELLO, user="again")
    rows = await sdk_house.door.closed_rows("sdk-retry", 3)
    assert sorted(row["usage_source"] for row in rows) == ["none", "none", "reported"]
    assert len(sdk_house.fu.of("again")) == 3


async def test_an_error_in_the_middle_of_a_stream_is_an_api_error(sdk_house: House) -> None:
    sdk_house.fu.scripts["cut"] = [sse_head(), *chunks(Answer().events({})[:3]), Reset()]
    async with async_client(sdk_house, max_retries=0) as client:
        stream = await client.chat.completions.create(model="m-openai", messages=HELLO, stream=True, user="cut")
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass
