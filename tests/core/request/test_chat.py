"""Requests: what is refused, what is forwarded, and that the bounds are bounds."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.prices import Price, Tariff
from nexus_proxy.core.request.chat import ChatRequest, Outgoing, parse_chat, prepare
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.errors import InvalidJson, InvalidParameter, NexusError, UnsupportedParameter

MODEL = Model(
    id="public/model",
    provider="local",
    upstream="served-name",
    dialect=Dialect("openai", ask_usage=False),
    tariff=Tariff(Price("p1", (), (), "USD")),
    created=0,
    context=1_000_000,
    max_output=8_192,
    default_output=4_096,
    media_tokens=1_000,
    template_tokens=100,
)
HELLO: dict[str, Any] = {"model": "public/model", "messages": [{"role": "user", "content": "Hello!"}]}


def parse(**parameters: Any) -> ChatRequest:
    return parse_chat(json.dumps(HELLO | parameters).encode())


def send(to: Model = MODEL, /, **parameters: Any) -> tuple[Outgoing, dict[str, Any]]:
    outgoing = prepare(parse(**parameters), to)
    return outgoing, json.loads(outgoing.body)


def values(outgoing: Outgoing) -> tuple[Any, ...]:
    bounds = outgoing.input_bound, outgoing.output_bound, outgoing.prompt_estimate
    return outgoing.body, outgoing.stream, outgoing.usage_injected, *bounds


def refused(error: type[NexusError], to: Model = MODEL, /, **parameters: Any) -> str | None:
    with pytest.raises(error) as caught:
        send(to, **parameters)
    assert type(caught.value) is error
    return caught.value.param


# --- JSON -----------------------------------------------------------------------------------------------------------

GOOD = orjson.dumps(HELLO)


@pytest.mark.parametrize(
    "raw",
    [
        GOOD[:-1],
        GOOD[:-1] + b",}",
        GOOD + b"x",
        GOOD + GOOD,
        GOOD[:-1] + b',"temperature":NaN}',
        GOOD[:-1] + b',"temperature":Infinity}',
        GOOD[:-1] + b',"temperature":1e400}',
        GOOD[:-1] + b',"x":' + b"1" * 5_000 + b"}",
        GOOD[:-1] + b',"x":"\\ud800"}',
        GOOD[:-1] + b',"x":"\xff"}',
        GOOD[:-1] + b',"x":"\xed\xa0\x80"}',
        GOOD[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.decode().encode("utf-32"),
    ],
)
def test_a1_a7_a9_a10_a15_a17_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_chat(raw)


@pytest.mark.parametrize("raw", [b"", b" ", b"null", b"[]", b'"x"', b"1", b"true"])
def test_a2_what_is_not_an_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJson):
        parse_chat(raw)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3))
def test_a1_a_broken_body_is_a_400_and_nothing_else(at: int, bytes_: bytes) -> None:
    with suppress(InvalidJson, InvalidParameter, UnsupportedParameter):
        prepare(parse_chat(GOOD[:at] + bytes_ + GOOD[at + 1 :]), MODEL)


@pytest.mark.parametrize("depth", [254, 300, 1_000])
def test_a7_what_can_be_read_but_not_written_is_refused(depth: int) -> None:
    raw = GOOD[:-1] + b',"x":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(InvalidJson):
        prepare(parse_chat(raw), MODEL)


def test_a8_what_is_priced_is_what_is_forwarded() -> None:
    raw = b'{"model":"cheap","max_tokens":1,"messages":[{"role":"user","content":"a"}],"model":"dear","max_tokens":9}'
    request = parse_chat(raw)
    assert (request.model, request.output_limit) == ("dear", 9)
    body = prepare(request, MODEL).body
    assert body.count(b'"model"') == body.count(b'"max_tokens"') == 1
    assert json.loads(body)["max_tokens"] == 9


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"m","messages":[' + b",".join([b"{}"] * 1_000_000) + b"]}",
        b'{"model":"m","messages":[' + b",".join([b'{"role":"user"}'] * 500_000) + b"]}",
        b'{"model":"m","x":[' + b",".join([b'","'] * 1_000_000) + b"]}",
    ],
    ids=["empty", "roles", "strings"],
)
def test_a31_a_million_tiny_values_are_refused_before_they_are_parsed(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus_proxy.core.request.chat.orjson.loads", None)
    with pytest.raises(InvalidJson):
        parse_chat(raw)


@pytest.mark.parametrize("text", ["a, b, c\n" * 200_000, '{"a": [1, 2]}, ' * 100_000, "\\" * 500_001, '\\",' * 300_000])
def test_a31_a_long_text_is_not_taken_for_many_values(text: str) -> None:
    request = parse(messages=[{"role": "user", "content": text}])
    assert request.body["messages"][0]["content"] == text


def test_a31_too_many_messages_are_refused() -> None:
    assert refused(InvalidParameter, messages=[{"role": "user", "content": "a"}] * 10_001) == "messages"
    send(messages=[{"role": "user", "content": "a"}] * 10_000)


# --- parameters -----------------------------------------------------------------------------------------------------

INTEGERS = {
    "max_tokens": (1, 2**31 - 1),
    "max_completion_tokens": (1, 2**31 - 1),
    "n": (1, 128),
    "top_logprobs": (0, 20),
}
NUMBERS = {"temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2)}
NO_NUMBER: list[Any] = ["10", True, False, [], {}, [1]]


@pytest.mark.parametrize("name", INTEGERS)
def test_a11_a12_an_integer_is_an_integer_within_its_range(name: str) -> None:
    low, high = INTEGERS[name]
    values: list[Any] = [*NO_NUMBER, 1.5, 1.0, low - 1, high + 1, -1, 2**63, 2**64, 10**30]
    for value in values:
        assert refused(InvalidParameter, **{name: value}) == name
    for good in (low, high):
        assert parse(**{name: good}).body[name] == good


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_a_number_within_its_range(name: str) -> None:
    low, high = NUMBERS[name]
    values: list[Any] = [*NO_NUMBER, low - 0.001, high + 0.001, 3, 10**30]
    for value in values:
        assert refused(InvalidParameter, **{name: value}) == name
    for good in (low, high, 0.5):
        assert send(**{name: good})[1][name] == good


@pytest.mark.parametrize("value", ["true", 1, 0, "", []])
def test_a33_stream_is_true_or_false(value: Any) -> None:
    assert refused(InvalidParameter, stream=value) == "stream"


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 1.5, True, "1"])
def test_a10_a_seed_is_an_int64(value: Any) -> None:
    assert refused(InvalidParameter, seed=value) == "seed"


def test_a12_best_of_above_1_is_refused() -> None:
    assert refused(UnsupportedParameter, best_of=2) == "best_of"
    assert refused(InvalidParameter, best_of=True) == "best_of"
    assert send(best_of=1)[1]["best_of"] == 1


@pytest.mark.parametrize(
    "value", ["", "a\0b", "a\r\nb", "\x1b[2J", "x" * 257, "x" * 10_000, 1, True, [], ["m"], {"id": "m"}]
)
def test_a16_a20_a_model_is_a_short_printable_text(value: Any) -> None:
    assert refused(InvalidParameter, model=value) == "model"


@pytest.mark.parametrize("value", ["../../etc/passwd", "http://169.254.169.254/", "org/name", "模型", "x" * 256])
def test_a20_any_other_model_is_left_to_the_catalogue(value: str) -> None:
    assert parse(model=value).model == value


@pytest.mark.parametrize("parameters", [{"user": "a\0"}, {"metadata": {"a": "\0"}}, {"metadata": {"\0": "a"}}])
def test_a16_nul_is_refused_where_it_names_something(parameters: dict[str, Any]) -> None:
    assert refused(InvalidParameter, **parameters) in parameters


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ("hello", "messages"),
        ({}, "messages"),
        ([], "messages"),
        (["hello"], "messages[0]"),
        ([{"role": "user"}, None], "messages[1]"),
        ([{"content": "a"}], "messages[0].role"),
        ([{"role": 1, "content": "a"}], "messages[0].role"),
        ([{"role": "", "content": "a"}], "messages[0].role"),
        ([{"role": "user", "content": 1}], "messages[0].content"),
        ([{"role": "user", "content": {"text": "a"}}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content"),
    ],
)
def test_messages_are_objects_with_a_role(messages: Any, param: str) -> None:
    assert refused(InvalidParameter, messages=messages) == param


@pytest.mark.parametrize("name", ["model", "messages"])
def test_what_is_required_is_required_and_null_is_absent(name: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_chat(orjson.dumps({key: value for key, value in HELLO.items() if key != name}))
    assert caught.value.param == name
    assert refused(InvalidParameter, **{name: None}) == name


def test_null_is_the_same_as_absent() -> None:
    names = [*INTEGERS, *NUMBERS, "stream", "stream_options", "stop", "tools", "seed", "enable_search", "anything"]
    assert values(send(**dict.fromkeys(names))[0]) == values(send()[0])
    assert parse(max_tokens=5, max_completion_tokens=None).output_limit == 5


@pytest.mark.parametrize("value", [1, True, {}, [1], ["a", None], ["a"] * 17])
def test_stop_is_a_text_or_some_texts(value: Any) -> None:
    assert refused(InvalidParameter, stop=value) == "stop"


@pytest.mark.parametrize("value", ["END", ["a", "b"], []])
def test_stop_is_forwarded(value: Any) -> None:
    assert send(stop=value)[1]["stop"] == value


@pytest.mark.parametrize("value", ["auto", {}, [1], [None]])
def test_tools_are_objects(value: Any) -> None:
    assert refused(InvalidParameter, tools=value) == "tools"


def test_a13_a14_other_parameters_are_forwarded_untouched() -> None:
    others = {
        "api_base": "http://evil.example",
        "base_url": "http://evil.example",
        "api_key": "sk-x",
        "top_k": -5,
        "thinking": {"type": "enabled"},
        "enable_thinking": True,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "ultra",
        "user": "alice",
        "metadata": {"a": "b"},
        "Ünknown": [1, 2.5, None, {"a": None}],
    }
    assert send(**others)[1] == HELLO | others | {"model": "served-name", "max_tokens": 4_096}


def test_f2_a_prompt_is_in_no_repr() -> None:
    request = parse(user="canary-user", stop="canary-stop")
    assert "canary" in json.dumps(request.body)
    assert "canary" not in repr(request)
    assert "canary" not in repr(prepare(request, MODEL))


# --- what changes the price -----------------------------------------------------------------------------------------

SEARCH_TOOL = {"type": "builtin_function", "function": {"name": "$web_search"}}


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"enable_search": True}, "enable_search"),
        ({"search_options": {"forced_search": True}}, "search_options"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": "auto"}, "service_tier"),
        ({"service_tier": "default"}, "service_tier"),
        ({"service_tier": False}, "service_tier"),
        ({"enable_search": 0}, "enable_search"),
        ({"service_tier": ["auto"]}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"models": ["dearest"]}, "models"),
        ({"tools": [SEARCH_TOOL]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "function", "function": {"name": "$web_search"}}]}, "tools[0].function.name"),
        ({"functions": [{"name": "$web_search"}]}, "functions[0].name"),
    ],
)
def test_what_changes_the_price_is_refused_unless_the_model_prices_it(parameters: dict[str, Any], param: str) -> None:
    assert refused(UnsupportedParameter, **parameters) == param
    allowed = replace(
        MODEL, allowed_parameters=frozenset({*parameters, "web_search", "builtin_function", "$web_search"})
    )
    assert send(allowed, **parameters)[1].items() >= parameters.items()


@pytest.mark.parametrize("tool", [{}, {"web_search": {"enable": True}}, {"type": ["web_search"]}, {"type": {}}])
def test_a_tool_without_a_name_for_its_type_is_refused(tool: dict[str, Any]) -> None:
    assert refused(UnsupportedParameter, tools=[tool]) == "tools[0].type"


@pytest.mark.parametrize(
    "parameters",
    [
        {"enable_search": False},
        {"modalities": ["text"]},
        {"tools": []},
        {"tools": [{"type": "function", "function": {"name": "web_search"}}]},
    ],
)
def test_what_changes_nothing_is_forwarded(parameters: dict[str, Any]) -> None:
    assert send(**parameters)[1].items() >= parameters.items()


@pytest.mark.parametrize(
    "parameters",
    [
        {"N": 128},
        {"Max_Tokens": 8_000},
        {"maX_toKens": 8_000},
        {"ſtream": True},
        {"Enable_Search": True},
        {"tools": [{"type": "function", "Type": "builtin_function"}]},
        {"tools": [{"type": "function", "function": {"name": "f", "Name": "$web_search"}}]},
        {"stream": True, "stream_options": {"Include_Usage": False}},
    ],
)
def test_a12_a_name_in_other_letters_does_not_pass_the_check(parameters: dict[str, Any]) -> None:
    refused(UnsupportedParameter, **parameters)


# --- the limit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("sent_name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_goes_where_the_provider_reads_it(given_name: str, sent_name: str) -> None:
    model = replace(MODEL, limit_parameter=sent_name)
    outgoing, body = send(model, **{given_name: 7})
    assert {name: body[name] for name in INTEGERS if name in body} == {sent_name: 7}
    assert outgoing.output_bound == 7
    assert send(model)[1][sent_name] == 4_096
    assert refused(InvalidParameter, model, **{given_name: 8_193}) == given_name


def test_both_limits_at_once_are_refused() -> None:
    assert refused(InvalidParameter, max_tokens=5, max_completion_tokens=5) == "max_completion_tokens"


def test_the_default_limit_is_at_most_what_the_model_writes() -> None:
    assert send(replace(MODEL, max_output=100))[1]["max_tokens"] == 100


@pytest.mark.parametrize("covers", [True, False])
def test_e19_the_output_bound_covers_every_choice_and_its_thinking(covers: bool) -> None:
    heeds = Dialect("qwen", ask_usage=False, budget_parameter="thinking_budget")
    model = replace(MODEL, dialect=heeds, limit_covers_thinking=covers, thinking_max=32_000)
    assert send(model, n=3, max_tokens=10)[0].output_bound == 3 * (10 if covers else 32_010)
    outgoing, body = send(model, n=3, max_tokens=10, thinking_budget=500)
    assert outgoing.output_bound == 3 * (10 if covers else 510)
    assert body["thinking_budget"] == 500


@pytest.mark.parametrize("value", [-1, True, "5", 1.5])
def test_e19_a_thinking_budget_is_a_count(value: Any) -> None:
    assert refused(InvalidParameter, thinking_budget=value) == "thinking_budget"


@pytest.mark.parametrize("heeded", ["", "thinking_budget", "think_at_most"])
def test_e19_a_budget_bounds_the_thinking_only_where_the_provider_is_known_to_heed_it(heeded: str) -> None:
    dialect = Dialect("own", ask_usage=False, budget_parameter=heeded)
    model = replace(MODEL, dialect=dialect, limit_covers_thinking=False, thinking_max=900)
    for name in ("thinking_budget", "think_at_most"):
        assert send(model, max_tokens=10, **{name: 0})[0].output_bound == (10 if name == heeded else 910)
        assert send(model, max_tokens=10, **{name: 5000})[0].output_bound == (5010 if name == heeded else 910)
    oddities: list[Any] = [-1, True, "0", 0.5, [], {}]
    for odd in oddities:
        assert send(model, max_tokens=10, think_at_most=odd)[0].output_bound == 910


# --- what a dialect refuses and renames -----------------------------------------------------------------------------

PICKY = replace(
    MODEL,
    dialect=Dialect(
        "picky",
        ask_usage=False,
        refused_parameters=frozenset({"enable_magic", "Deep"}),
        renamed_parameters=(("seed", "random_seed"), ("n", "candidates"), ("tools", "abilities")),
    ),
)


@pytest.mark.parametrize(
    "name", ["enable_magic", "Enable_Magic", "deep", "Deep", "random_seed", "Candidates", "abilities"]
)
@pytest.mark.parametrize("value", [True, False, 0, [], "x"])
def test_what_a_dialect_refuses_is_answered_by_us_in_whatever_letters(name: str, value: Any) -> None:
    assert refused(UnsupportedParameter, PICKY, **{name: value}) == name
    assert send(MODEL, **{name: value})[1][name] == value


def test_null_is_not_refused_and_a_models_entry_may_allow_it() -> None:
    assert "enable_magic" not in send(PICKY, enable_magic=None)[1]
    allowing = replace(PICKY, allowed_parameters=frozenset({"enable_magic"}))
    assert send(allowing, enable_magic=1)[1]["enable_magic"] == 1


def test_what_a_dialect_renames_is_checked_and_bounded_under_our_name() -> None:
    tools = [{"type": "function", "function": {"name": "look", "description": "d" * 500}}]
    (outgoing, body), (plain, _) = (send(to, seed=7, n=3, max_tokens=10, tools=tools) for to in (PICKY, MODEL))
    assert (body["random_seed"], body["candidates"], body["abilities"]) == (7, 3, tools)
    assert not {"seed", "n", "tools"} & body.keys()
    assert outgoing.output_bound == plain.output_bound == 30
    assert outgoing.input_bound >= plain.input_bound
    assert refused(InvalidParameter, PICKY, n=129) == "n"
    assert refused(UnsupportedParameter, PICKY, tools=[{"type": "web_search"}]) == "tools[0].type"


@pytest.mark.parametrize("known_as", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("renamed", ["max_tokens", "max_completion_tokens"])
def test_e19_a_limit_that_is_renamed_goes_out_once_and_bounds_the_output(known_as: str, renamed: str) -> None:
    renames = (("thinking_budget", "think_at_most"), (renamed, "most_tokens"))
    dialect = Dialect("own", ask_usage=False, budget_parameter="thinking_budget", renamed_parameters=renames)
    model = replace(MODEL, dialect=dialect, limit_parameter=known_as, limit_covers_thinking=False, thinking_max=900)
    name = "most_tokens" if known_as == renamed else known_as
    for asked in ({}, {"max_tokens": 10}, {"max_completion_tokens": 10}):
        limit = 10 if asked else 4_096
        outgoing, body = send(model, n=2, thinking_budget=5, **asked)
        assert {key: value for key, value in body.items() if "tokens" in key} == {name: limit}
        assert (body["think_at_most"], outgoing.output_bound) == (5, 2 * (limit + 5))
    assert refused(UnsupportedParameter, model, most_tokens=400_000) == "most_tokens"
    assert refused(InvalidParameter, model, max_tokens=10**6) == "max_tokens"


@pytest.mark.parametrize("name", sorted(load_catalogue().dialects))
def test_every_dialect_bounds_the_output_under_the_name_that_its_provider_reads(name: str) -> None:
    dialect = load_catalogue().dialects[name]
    model = replace(MODEL, dialect=dialect, limit_parameter=dialect.limit_parameter)
    for asked_as in ("max_tokens", "max_completion_tokens"):
        body = send(model, **{asked_as: 10})[1]
        assert {key: value for key, value in body.items() if key.startswith("max_")} == {dialect.limit_parameter: 10}
    assert send(model)[1][dialect.limit_parameter] == 4_096
    asked = send(model, stream=True)[1].get("stream_options")
    assert asked == ({"include_usage": True} if dialect.ask_usage else None)
    for parameter in dialect.refused_parameters:
        assert refused(UnsupportedParameter, model, **{parameter: True}) == parameter


def test_the_temperature_is_ours_only_where_the_provider_takes_it() -> None:
    assert "temperature" not in send()[1]
    takes = replace(MODEL, send_temperature=True)
    assert send(takes)[1]["temperature"] == 0.7
    assert send(takes, temperature=0)[1]["temperature"] == 0


# --- streams --------------------------------------------------------------------------------------------------------

ASKS = replace(MODEL, dialect=Dialect("qwen", ask_usage=True))


@pytest.mark.parametrize(
    ("options", "injected", "sent"),
    [
        (None, True, {"include_usage": True}),
        ({}, True, {"include_usage": True}),
        ({"include_usage": None}, True, {"include_usage": True}),
        ({"include_usage": False, "other": 1}, True, {"include_usage": True, "other": 1}),
        ({"include_usage": True, "other": 1}, False, {"include_usage": True, "other": 1}),
    ],
)
def test_e22_usage_is_asked_for_where_the_provider_does_not_send_it(
    options: Any, injected: bool, sent: dict[str, Any]
) -> None:
    outgoing, body = send(ASKS, stream=True, stream_options=options)
    assert (outgoing.stream, outgoing.usage_injected, body["stream_options"]) == (True, injected, sent)
    outgoing, body = send(stream=True, stream_options=options)
    assert (outgoing.usage_injected, body.get("stream_options")) == (False, options)


def test_e22_no_usage_is_asked_for_without_a_stream() -> None:
    outgoing, body = send(ASKS)
    assert not outgoing.usage_injected
    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": True}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_stream_options_are_an_object_of_a_stream(parameters: dict[str, Any], param: str) -> None:
    assert refused(InvalidParameter, **parameters) == param


def test_a_request_can_be_prepared_twice() -> None:
    request = parse(stream=True, max_tokens=5)
    before = orjson.dumps(request.body)
    other = replace(ASKS, limit_parameter="max_completion_tokens", send_temperature=True)
    assert values(prepare(request, other)) == values(prepare(request, other))
    assert orjson.dumps(request.body) == before


# --- the bounds -----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(), min_size=1), st.booleans())
def test_e19_no_tokenizer_of_bytes_makes_more_tokens_than_the_bound(texts: list[str], escaped: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    raw = json.dumps(HELLO | {"messages": messages}, ensure_ascii=escaped)
    outgoing = prepare(parse_chat(raw.encode()), MODEL)
    text_bytes = sum(len(text.encode()) for text in texts)
    assert outgoing.input_bound == len(outgoing.body) + 100 >= text_bytes
    assert outgoing.prompt_estimate == -(-text_bytes // 4)


def test_e19_the_context_bounds_the_input() -> None:
    assert send(replace(MODEL, context=50))[0].input_bound == 50


@pytest.mark.parametrize("name", ["tools", "functions", "response_format"])
def test_e19_tools_are_counted_twice(name: str) -> None:
    schema = {"name": "f", "description": "описание" * 10, "parameters": {"type": "object"}}
    value = {
        "tools": [{"type": "function", "function": schema}],
        "functions": [schema],
        "response_format": {"type": "json_schema", "json_schema": schema},
    }[name]
    outgoing, _ = send(**{name: value})
    assert outgoing.input_bound == len(outgoing.body) + len(orjson.dumps(value)) + 100


def content(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


TEXT = {"type": "text", "text": "What is in it?"}
DATA = "data:image/png;base64," + "A" * 100_000


@pytest.mark.parametrize("image", [{"url": DATA}, {"url": DATA, "detail": "high"}, DATA])
def test_an_image_is_bounded_by_its_allowance_and_not_by_its_bytes(image: Any) -> None:
    parts = content(TEXT, {"type": "image_url", "image_url": image}, {"type": "image_url", "image_url": image})
    outgoing, body = send(**parts)
    assert body["messages"] == parts["messages"]
    assert outgoing.input_bound == len(outgoing.body) - 2 * len(DATA) + 2 * 1_000 + 100
    assert outgoing.prompt_estimate == 4 + 2 * 1_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "data:image/png;base64," + "A" * 5_000},
        {"type": "image_url", "image_url": {"url": "data:text/plain," + "A" * 5_000}},
        {"type": "image_url", "image_url": {"url": "https://example.org/" + "A" * 5_000}},
    ],
)
def test_e19_text_in_disguise_is_counted(part: dict[str, Any]) -> None:
    assert send(**content(part))[0].input_bound > 5_000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://example.org/v.mp4"}},
        {"type": "video", "video": ["https://example.org/1.jpg"]},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "text", "text": "a", "Type": "video_url", "video_url": {"url": "https://example.org/v.mp4"}},
        {"type": ["text"]},
        {},
    ],
)
def test_e19_what_has_no_bound_of_its_own_is_bounded_by_the_context(part: dict[str, Any]) -> None:
    outgoing, _ = send(**content(TEXT, part))
    assert outgoing.input_bound == MODEL.context
    assert outgoing.prompt_estimate == 4 + 1_000


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "fileid://file-fe-1"},
        {"role": "user", "content": "", "Content": [{"type": "video_url"}]},
        {"role": "user", "content": "", "audio": {"id": "audio-1"}},
    ],
)
def test_e19_a_reference_to_a_file_is_bounded_by_the_context(message: dict[str, Any]) -> None:
    assert send(messages=[message])[0].input_bound == MODEL.context


def test_the_estimate_counts_names_and_tool_arguments_in_bytes() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a":"é"}'}}
    messages = [
        {"role": "user", "name": "bob", "content": "汉字"},
        {"role": "assistant", "content": None, "tool_calls": [call, "nonsense", {"function": 5}]},
        {"role": "assistant", "function_call": {"name": "find", "arguments": 5}},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "ok"}, {"type": "text"}]},
    ]
    outgoing, _ = send(messages=messages)
    assert outgoing.prompt_estimate == -(-(3 + 6 + 4 + 10 + 4 + 2 + 2) // 4)
    assert outgoing.input_bound < MODEL.context
