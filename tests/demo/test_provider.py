"""The built-in provider, asked as the openai SDK asks."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, AuthenticationError, BadRequestError

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.demo.failures import FAILURES, KINDS
from nexus_proxy.demo.provider import DemoProvider
from nexus_proxy.demo.shapes import SHAPES
from nexus_proxy.demo.words import pieces, sample_arguments

HELLO = [{"role": "user", "content": "Hello there"}]


NO_WISHES = ("/fail bogus", "/fail no_money hiden", "/fail", "/fail no_money late now")


async def ask(client: AsyncOpenAI, **options: Any) -> Any:
    """Ask as a program without types does."""
    create: Any = client.chat.completions.create
    return await create(model="demo-chat", **options)


@pytest.fixture
async def provider() -> AsyncIterator[DemoProvider]:
    provider = DemoProvider(pace_s=0)
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def client(provider: DemoProvider) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=provider.base_url, api_key=provider.api_key, max_retries=0) as client:
        yield client


@given(st.text())
def test_pieces_are_the_text_and_no_more_than_its_bytes(text: str) -> None:
    cut = pieces(text)
    assert "".join(cut) == text
    assert len(cut) <= len(text.encode("utf-8", "surrogatepass"))


async def test_answer_echoes_the_prompt_and_counts_its_pieces(provider: DemoProvider, client: AsyncOpenAI) -> None:
    answer = await ask(client, messages=HELLO)
    text = answer.choices[0].message.content
    assert text is not None
    assert "“Hello there”" in text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(pieces(text))
    assert provider.sent[-1].texts == (text,)
    counts = provider.sent[-1].counts
    assert counts is not None
    assert counts.prompt == answer.usage.prompt_tokens


async def test_stream_is_the_same_text_with_usage_only_if_asked(provider: DemoProvider, client: AsyncOpenAI) -> None:
    for asked in (True, False):
        stream = await ask(
            client,
            messages=HELLO,
            stream=True,
            **({"stream_options": {"include_usage": True}} if asked else {}),
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert (text,) == provider.sent[-1].texts
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert len(usages) == asked
        if asked:
            assert chunks[-1].choices == []
            assert usages[0].model_dump(exclude_none=True) == provider.sent[-1].usage


async def test_repeated_messages_count_as_cached(provider: DemoProvider, client: AsyncOpenAI) -> None:
    await ask(client, messages=HELLO)
    first = provider.sent[-1].counts
    assert first is not None
    assert first.cached == 0
    longer = [*HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Again"}]
    await ask(client, messages=longer)
    second = provider.sent[-1].counts
    assert second is not None
    assert 0 < second.cached <= first.prompt
    assert second.prompt > first.prompt


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_limit_ends_with_length(client: AsyncOpenAI, name: str) -> None:
    answer = await ask(client, messages=HELLO, n=2, **{name: 3})
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    assert answer.usage.completion_tokens == 6


async def test_tools_get_a_call_and_then_an_answer(provider: DemoProvider, client: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {**schema, "required": ["city"]}}}]
    stream = await ask(client, messages=HELLO, tools=tools, stream=True)
    name, arguments, finish = "", "", None
    async for chunk in stream:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or ():
                name += call.function.name or ""
                arguments += call.function.arguments or ""
            finish = choice.finish_reason or finish
    assert (name, json.loads(arguments), finish) == ("weather", {"city": "demo"}, "tool_calls")
    whole = await ask(client, messages=HELLO, tools=tools)
    assert json.loads(whole.choices[0].message.tool_calls[0].function.arguments) == {"city": "demo"}
    told = [*HELLO, {"role": "tool", "tool_call_id": "x", "content": "sunny"}]
    answer = await ask(client, messages=told, tools=tools)
    assert "sunny" in answer.choices[0].message.content


def test_sample_arguments_take_what_an_enum_allows() -> None:
    schema = {"properties": {"unit": {"enum": ["C", "F"]}, "n": {"type": "integer"}}}
    assert sample_arguments(schema) == {"unit": "C", "n": 1}


async def test_wrong_credential_and_wrong_body_are_refused(provider: DemoProvider, client: AsyncOpenAI) -> None:
    with pytest.raises(AuthenticationError):
        await ask(
            client.with_options(api_key="wrong"),
            messages=HELLO,
        )
    with pytest.raises(BadRequestError):
        await ask(client, messages=[])
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {provider.api_key}"}) as session,
        session.post(f"{provider.base_url}/chat/completions", data=b"{") as response,
    ):
        assert response.status == 400
    assert not provider.sent


async def test_it_fails_on_demand_in_the_words_of_its_dialect() -> None:
    said = {
        ("moonshot", "/fail no_money"): (429, b"exceeded_current_quota_error"),
        ("zhipu", "/fail no_money"): (429, b'"1113"'),
        ("minimax", "/fail no_money hidden"): (200, b'"status_code":1008'),
        ("spark", "/fail rate_limit hidden"): (200, b'"code":11203'),
        ("siliconflow", "/fail auth"): (401, b'"Invalid token'),
        ("deepseek", "/fail no_money late"): (200, b'"code":"invalid_request_error"'),
        ("yi", "/fail overloaded"): (529, b"overloaded"),
        **{("yi", prompt): (200, b"KIND is one of auth, bad_request") for prompt in NO_WISHES},
    }
    for (dialect, prompt), (status, words) in said.items():
        provider = DemoProvider(dialect=dialect, pace_s=0)
        await provider.start()
        headers = {"Authorization": f"Bearer {provider.api_key}"}
        for streamed in (False, True):
            body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": streamed}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(f"{provider.base_url}/chat/completions", json=body) as response,
            ):
                assert response.status == status
                assert streamed or words in await response.read()
        await provider.stop()


def test_every_dialect_has_a_shape_and_all_kinds_of_failures() -> None:
    assert SHAPES.keys() == FAILURES.keys() == load_catalogue().dialects.keys()
    for failures in FAILURES.values():
        assert failures.keys() == KINDS
