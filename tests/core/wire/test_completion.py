"""One answer, chunk by chunk, in the shapes that providers give it; and what is an error in disguise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.wire.completion import Completion, is_error, is_unread, read_json
from nexus_proxy.core.wire.dialect import Dialect, Failure, plain
from nexus_proxy.core.wire.usage import Usage, UsageShape

DIALECTS = load_catalogue().dialects
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def delta(text: str = "", index: int = 0, finish: str | None = None, /, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}], **more}


def choice(index: int, usage: dict[str, int]) -> dict[str, Any]:
    return {"index": index, "delta": {}, "finish_reason": "stop", "usage": usage}


def read(dialect: str | Dialect, *chunks: dict[str, Any]) -> Completion:
    answer = Completion(DIALECTS[dialect] if isinstance(dialect, str) else dialect)
    for chunk in chunks:
        assert not is_error(chunk, DIALECTS[dialect] if isinstance(dialect, str) else dialect)
        answer.read(chunk)
    return answer


# --- where usage stands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b25_b26_usage_counts_wherever_a_stream_has_it_and_the_last_wins(dialect: str) -> None:
    own = ({"choices": [], "usage": USAGE},)
    on_finish = (delta("hi"), delta("", 0, "stop", usage=USAGE))
    on_every = tuple(delta("x", usage={**USAGE, "completion_tokens": n, "total_tokens": 9 + n}) for n in (0, 1, 3))
    whole = (
        delta("hi", usage={"total_tokens": 0, "total_characters": 0}),
        {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": "hi"}}], "usage": USAGE},
    )
    for chunks in (own, on_finish, on_every, whole):
        assert read(dialect, *chunks).usage == Usage(9, 3)


def test_a_placeholder_of_zeros_or_null_is_no_usage() -> None:
    for nothing in (None, {}, {"total_tokens": 0, "total_characters": 0}, {"prompt_tokens": 0, "completion_tokens": 0}):
        answer = Completion(DIALECTS["minimax"])
        assert not answer.read(delta("hi", usage=nothing))
        assert answer.usage is None
        assert answer.read(delta("", usage=USAGE))
        assert not answer.read(delta("", usage=nothing))
        assert answer.usage == Usage(9, 3)


def test_a_last_event_that_is_the_whole_answer_is_not_counted_twice() -> None:
    message = {"role": "assistant", "content": "hello", "reasoning_content": "so"}
    last = {"object": "chat.completion", "choices": [{"finish_reason": "stop", "index": 0, "message": message}]}
    chunks = ({"choices": [{"delta": {"reasoning_content": "so"}}]}, delta("hel"), delta("lo"))
    answer = read("minimax", *chunks, {**last, "base_resp": {"status_code": 0, "status_msg": "unknown field"}})
    assert (answer.output_bytes, answer.finished, answer.thought) == (7, True, True)


def test_each_choice_of_several_counts_itself() -> None:
    one, two = (choice(n, {**USAGE, "completion_tokens": 3 + n, "cached_tokens": 4}) for n in range(2))
    whole = Usage(9, 7, cached=4, flagged=True)  # the totals are those of one choice
    for chunks in (({"choices": [one]}, {"choices": [two]}), ({"choices": [one, two]},)):
        assert read("moonshot", *chunks).usage == whole
    twice = read("moonshot", {"choices": [one]}, {"choices": [one]}, {"choices": [two]})
    assert twice.usage == whole
    top = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    assert read("moonshot", {"choices": [one]}, {"choices": [two]}, {"choices": [], "usage": top}).usage == Usage(9, 7)
    assert read("moonshot", {"choices": [one, two], "usage": top}).usage == Usage(9, 7, cached=4)


def test_usage_in_a_choice_counts_only_where_the_dialect_says_so() -> None:
    chunk = {"choices": [choice(0, USAGE)]}
    assert read("moonshot", chunk).usage == Usage(9, 3)
    assert read("openai", chunk).usage is None


def test_text_beside_the_choices_is_not_counted() -> None:
    answer = read("yi", delta("he", content="he", lastOne=False), delta("llo", content="hello", lastOne=True))
    assert answer.output_bytes == 5


def test_an_empty_finish_reason_is_none() -> None:
    answer = read("siliconflow", delta("x", 0, ""))
    assert not answer.finished
    answer.read(delta("", 0, "stop"))
    assert answer.finished


def test_a_dialects_own_places_go_before_the_common_one() -> None:
    own = Dialect("own", ask_usage=False, usage=UsageShape(at=(("meta", "tokens"), ("bill",))))
    other = {"prompt_tokens": 5, "completion_tokens": 1}
    assert read(own, delta(meta={"tokens": USAGE}, bill=other, usage=other)).usage == Usage(9, 3)
    assert read(own, delta(meta={"tokens": None}, bill=USAGE, usage=other)).usage == Usage(9, 3)
    assert read(own, delta(meta=7, bill={"prompt_tokens": 0}, usage=USAGE)).usage == Usage(9, 3)
    assert read("openai", delta(meta={"tokens": USAGE})).usage is None


# --- what a delta says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "size", "thought"),
    [
        ({"reasoning_details": [{"type": "reasoning.text", "text": "hmm"}]}, 3, True),
        ({"reasoning_details": [{"text": "hmm"}], "reasoning_content": "hmm"}, 3, True),
        ({"reasoning_details": [{"text": "hmm"}], "reasoning_content": ""}, 3, True),
        ({"reasoning_details": [{"text": None}, 5, {}]}, 0, False),
        ({"reasoning_details": []}, 0, False),
        ({"reasoning_content": "浪"}, 3, True),
        ({"reasoning": "hmm", "content": "a"}, 4, True),
        ({"name": "MiniMax AI", "role": "assistant", "audio_content": "", "content": "a"}, 1, False),
    ],
)
def test_reasoning_is_seen_under_each_name(message: dict[str, Any], size: int, thought: bool) -> None:
    answer = read("minimax", {"choices": [{"index": 0, "delta": message}]})
    assert (answer.output_bytes, answer.thought) == (size, thought)


def test_a_name_of_another_dialect_is_no_reasoning() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"reasoning_details": [{"text": "hmm"}], "thoughts": "so"}}]}
    assert read("openai", chunk).output_bytes == 0
    assert read(Dialect("own", ask_usage=False, reasoning=frozenset({"thoughts"})), chunk).output_bytes == 2


# --- errors in disguise -------------------------------------------------------------------------------------------

ANYWHERE: list[dict[str, Any]] = [
    {"error": {"message": "m"}},
    {"error": "m"},
    {"error": {"message": "m"}, "choices": [{"delta": {"content": "x"}}]},
    {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None},
    {"base_resp": {"status_code": 2061}, "choices": []},
    {"error_code": 18, "error_msg": "qps"},
    {"code": 11200, "message": "m", "sid": "s"},
    {"code": "Arrearage", "message": "m", "request_id": "r"},
    {"code": 401, "msg": "m", "success": False},
    {"Response": {"Error": {"Code": "AuthFailure", "Message": "m"}, "RequestId": "r"}},
]
NOWHERE: list[dict[str, Any]] = [
    {},
    {"error": None},
    {"error": {}},
    {"error": ""},
    {"base_resp": {"status_code": 0, "status_msg": "unknown field: x"}},
    {"base_resp": {"status_code": "0"}},
    {"base_resp": None},
    {"error_code": 0},
    {"code": 0, "message": "Success", "sid": "s"},
    {"code": "0", "message": "Success"},
    {"code": None, "message": ""},
    {"message": "x"},
    {"Response": {"Choices": []}},
    {"Response": []},
    {"choices": [{"delta": {"content": "x"}}], "code": 5, "message": "m"},
    {"choices": [{"delta": {"content": "x"}}], "base_resp": {"status_code": 1027}},
    {"choices": [{"delta": {}}], "usage": USAGE, "base_resp": {"status_code": 1027}},
]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_b15_an_error_is_seen_whichever_dialect_the_provider_is_said_to_have(dialect: str) -> None:
    for found in ANYWHERE:
        assert is_error(found, DIALECTS[dialect]), found
    for found in NOWHERE:
        assert not is_error(found, DIALECTS[dialect]), found


def test_a_code_alone_is_an_error_only_where_the_dialect_has_such_codes() -> None:
    assert [name for name in DIALECTS if is_error({"code": 10013}, DIALECTS[name])] == ["spark"]


def test_b15_beside_choices_that_say_nothing_a_failure_of_the_dialect_counts() -> None:
    found = {"choices": [{"index": 0, "message": {"content": ""}}], "base_resp": {"status_code": 1008}}
    assert is_error(found, DIALECTS["minimax"])
    assert not is_error(found, DIALECTS["openai"])


@pytest.mark.parametrize(
    ("body", "unread"),
    [
        (b'{"choices":[]}', False),
        (b'{"choices":null}', False),
        (b'{"choices":{}}', False),
        (b'{"choices":[],"note":{"choices":[{"index":0}]}}', False),
        (b'{"id":1}', False),
        (b"{}", False),
        (b"", False),
        (b"choices", False),
        (b'{"note":"the word \\"choices\\""}', False),
        (b'{"choices":[{}]}', False),
        (b'{"choices":[5,{}]}', False),
        (b'{"choices":[5]}', True),
        (b'{"choices":{"0":{"message":{"content":"x"}}}}', True),
        (b'{"choices":"x"}', True),
        (b'{"data":{"choices":[{"index":0}]}}', True),
        (b'[{"choices":[{"index":0}]}]', True),
        (b'{"choices":[{"index":0}]}}', True),
        (b'{"choices":[', True),
    ],
)
def test_what_looks_like_a_completion_is_read_or_unread_and_empty_choices_are_none(body: bytes, unread: bool) -> None:
    assert is_unread(read_json(body), body) is unread


OWN = Dialect("own", ask_usage=False, failure=(Failure(("result", "state"), frozenset({"fine", "0", "true"})),))


@pytest.mark.parametrize("state", ["fine", "0", 0, 0.0, True, "true", None, "", [], {}])
def test_a_harmless_value_is_no_error(state: Any) -> None:
    assert not is_error({"result": {"state": state}}, OWN)


@pytest.mark.parametrize("state", ["Fine", 1, "1", False, 0.5, "broke", [0], {"a": 1}, -1])
def test_any_other_value_is_one(state: Any) -> None:
    assert is_error({"result": {"state": state}}, OWN)
    assert not is_error({"result": {"state": state}}, DIALECTS["openai"])


def test_what_a_path_does_not_reach_is_no_error() -> None:
    unreached: list[dict[str, Any]] = [{}, {"result": None}, {"result": 5}, {"result": []}, {"result": {}}]
    for found in unreached:
        assert not is_error(found, OWN)


def test_a_value_as_a_text() -> None:
    assert [plain(value) for value in (0, 0.0, "0", True, False, 1.5, "x")] == [
        "0",
        "0",
        "0",
        "true",
        "false",
        "1.5",
        "x",
    ]


NAMES = ["choices", "delta", "message", "usage", "index", "content", "reasoning_details", "tool_calls", "text", "code"]
MORE = ["finish_reason", "prompt_tokens", "completion_tokens", "error", "base_resp", "status_code"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, *MORE]), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.lists(JSON.filter(lambda found: isinstance(found, dict)), max_size=4)


@given(OBJECTS, st.sampled_from(sorted(DIALECTS)))
def test_b28_whatever_comes_nothing_raises_and_no_usage_credits_anybody(chunks: list[Any], dialect: str) -> None:
    answer = Completion(DIALECTS[dialect])
    for chunk in chunks:
        is_error(chunk, DIALECTS[dialect])
        before = answer.usage
        told = answer.read(chunk)
        assert told or answer.usage == before or answer.thought
        if answer.usage is not None:
            assert answer.usage.prompt > 0
            assert 0 <= answer.usage.cached + answer.usage.cache_write <= answer.usage.prompt
            assert 0 <= answer.usage.reasoning <= answer.usage.completion
    assert answer.output_bytes >= 0
