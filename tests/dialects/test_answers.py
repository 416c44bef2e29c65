"""The built-in provider of every dialect behind a real door, asked by the real `openai` SDK.

Strategy: whichever way a request is made, the client gets what the provider said, and is charged what an independent
script computes from the usage object that the provider wrote.
"""

import json
from typing import Any

import pytest

from nexus_proxy.demo.shapes import SHAPES, Where
from tests.dialects.stage import Stage
from tests.rig.door import CHAT
from tests.rig.raw_client import post

pytestmark = pytest.mark.asyncio(loop_scope="module")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}
THINKING: dict[str, Any] = {"extra_body": {"thinking": {"type": "enabled"}}}
NOT_THINKING: dict[str, Any] = {"extra_body": {"thinking": {"type": "disabled"}}}
DIALECTS = pytest.mark.parametrize("dialect", sorted(SHAPES))


async def collect(stream: Any) -> tuple[list[Any], dict[int, str]]:
    """Return the chunks of a stream and the text of each choice."""
    chunks = [chunk async for chunk in stream]
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.delta is not None:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return chunks, texts


def request_id_of(stream: Any) -> str:
    return str(stream.response.headers["x-request-id"])


@DIALECTS
async def test_an_answer_that_is_not_streamed(stage: Stage, dialect: str) -> None:
    answer = await stage.ask(dialect)
    sent = stage.sent(dialect)
    assert answer.choices[0].message.content == sent.texts[0]
    assert sent.usage is not None
    assert answer.usage.total_tokens == sent.usage["total_tokens"]
    await stage.is_exact(dialect, answer._request_id)


@DIALECTS
@pytest.mark.parametrize("asked", [False, True], ids=["usage_injected", "usage_asked"])
async def test_a_stream(stage: Stage, dialect: str, asked: bool) -> None:
    stream = await stage.ask(dialect, stream=True, **(ASKED if asked else {}))
    chunks, texts = await collect(stream)
    assert texts[0] == stage.sent(dialect).texts[0]
    await stage.is_exact(dialect, request_id_of(stream))
    own = SHAPES[dialect].where in (Where.OWN, Where.CHOICE)  # with an event of its own, if asked
    assert [not chunk.choices for chunk in chunks].count(True) == (own and asked)
    if asked:
        assert [chunk.usage for chunk in chunks if chunk.usage][-1].total_tokens > 0


@DIALECTS
async def test_the_bytes_are_the_providers(stage: Stage, dialect: str) -> None:
    for options in ({"stream": True, **ASKED}, {"stream": True}, {}):
        body = {"model": f"d-{dialect}", "messages": [{"role": "user", "content": "Bytes"}], **options}
        answer = await stage.door.raw(post(CHAT, body, stage.door.key))
        events = stage.sent(dialect).body.split(b"\n\n")
        if options == {"stream": True}:
            events = [event for event in events if b'"choices":[],' not in event]
        assert bytes(answer.body) == b"\n\n".join(events)
        await stage.is_exact(dialect, answer.request_id)


@DIALECTS
async def test_tools(stage: Stage, dialect: str) -> None:
    for thinking in NOT_THINKING, THINKING:
        stream = await stage.ask(dialect, stream=True, tools=TOOLS, **thinking)
        names, arguments, finish = [], "", None
        async for chunk in stream:
            for choice in chunk.choices:
                for call in (choice.delta.tool_calls if choice.delta is not None else None) or ():
                    names += [call.function.name] if call.function.name else []
                    arguments += call.function.arguments or ""
                finish = getattr(choice, "finish_reason", None) or finish
        assert (names, json.loads(arguments)) == (["weather"], {"city": "demo"})
        assert finish == ("tool_calls" if SHAPES[dialect].finishes else None)
        await stage.is_exact(dialect, request_id_of(stream))
        answer = await stage.ask(dialect, tools=TOOLS, **thinking)
        (call,) = answer.choices[0].message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "demo"}
        await stage.is_exact(dialect, answer._request_id)


@DIALECTS
async def test_several_choices(stage: Stage, dialect: str) -> None:
    stream = await stage.ask(dialect, stream=True, n=3)
    _, texts = await collect(stream)
    assert tuple(texts[index] for index in range(3)) == stage.sent(dialect).texts
    await stage.is_exact(dialect, request_id_of(stream))
    answer = await stage.ask(dialect, n=2)
    assert tuple(choice.message.content for choice in answer.choices) == stage.sent(dialect).texts
    await stage.is_exact(dialect, answer._request_id)


@DIALECTS
async def test_thinking_is_part_of_the_output(stage: Stage, dialect: str) -> None:
    shape = SHAPES[dialect]
    for streamed in (True, False):
        answer = await stage.ask(dialect, stream=streamed, **THINKING)
        if streamed:
            chunks, _ = await collect(answer)
            deltas = [choice.delta.model_dump() for chunk in chunks for choice in chunk.choices if choice.delta]
            said = "".join(delta.get(shape.reasoning) or "" for delta in deltas)
            row = await stage.is_exact(dialect, request_id_of(answer))
        else:
            said = answer.choices[0].message.model_dump().get(shape.reasoning) or ""
            row = await stage.is_exact(dialect, answer._request_id)
        counts, usage = stage.sent(dialect).counts, stage.sent(dialect).usage
        assert counts is not None
        assert usage is not None
        assert bool(said) is bool(counts.reasoning) is (shape.thinks is not None)
        reported = (
            counts.reasoning if "completion_tokens_details" in usage else min(1, counts.reasoning)
        )  # seen, uncounted
        assert row["reasoning_tokens"] == reported


@DIALECTS
async def test_what_was_said_before_costs_less_where_the_provider_says_so(stage: Stage, dialect: str) -> None:
    messages = [{"role": "user", "content": f"An opening of {dialect}, to be said again."}]
    await stage.ask(dialect, messages=messages)
    messages += [{"role": "assistant", "content": "Well?"}, {"role": "user", "content": "Again."}]
    answer = await stage.ask(dialect, messages=messages)
    row = await stage.is_exact(dialect, answer._request_id)
    assert (row["cached_tokens"] > 0) is SHAPES[dialect].caches
    part = {"type": "text", "text": "A page to keep.", "cache_control": {"type": "ephemeral"}}
    stream = await stage.ask(dialect, messages=[{"role": "user", "content": [part]}], stream=True)
    await collect(stream)
    await stage.is_exact(dialect, request_id_of(stream))
    counts = stage.sent(dialect).counts
    assert counts is not None
    assert (counts.cache_write > 0) is SHAPES[dialect].writes_cache


@DIALECTS
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_bounds_what_is_charged(stage: Stage, dialect: str, name: str) -> None:
    answer = await stage.ask(dialect, extra_body={name: 5, "thinking": {"type": "enabled"}})
    await stage.is_exact(dialect, answer._request_id)
    if SHAPES[dialect].finishes:
        assert answer.choices[0].finish_reason == "length"
