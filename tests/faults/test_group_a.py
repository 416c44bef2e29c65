"""Group A of the failure catalogue: bad input, sent through a socket to a whole door.

Strategy: tables. Whatever is refused leaves nothing behind: no hold, and not one byte upstream.
"""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rig import reckon
from tests.rig.door import CHAT
from tests.rig.eventually import eventually
from tests.rig.house import House
from tests.rig.raw_client import Response, get, post
from tests.rig.settings import UPSTREAM_KEY
from tests.rig.steps import error
from tests.rig.threads import Withheld

pytestmark = pytest.mark.asyncio(loop_scope="module")
VALID = b'{"model":"m-openai","max_tokens":16,"messages":[{"role":"user","content":"hi"}]}'


async def refused(house: House, data: bytes, status: int | tuple[int, ...], code: str | None = None) -> Response:
    """Send bytes that must be refused with a JSON error and leave nothing behind."""
    async with house.nothing_happens():
        answer = await house.door.raw(data)
    assert answer.status in ((status,) if isinstance(status, int) else status), (answer, bytes(answer.body))
    assert answer.error["message"]
    if code is not None:
        assert answer.code == code
    return answer


def send(house: House, body: bytes | dict[str, Any], *headers: str) -> bytes:
    return post(CHAT, body, house.door.key, *headers)


def with_raw(member: bytes) -> bytes:
    """Return a valid body with one more member, as it stands."""
    return VALID[:-1] + b"," + member + b"}"


@asynccontextmanager
async def loop_is_never_blocked(limit_s: float) -> AsyncIterator[None]:
    """Measure the longest time for which the loop did not turn."""
    worst, stop = 0.0, False

    async def probe() -> None:
        nonlocal worst
        while not stop:
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)

    task = asyncio.create_task(probe())
    yield
    stop = True
    await task
    assert worst < limit_s, f"the loop stood still for {worst:.3f} s"


@pytest.mark.parametrize(
    "body",
    [VALID[:-1], VALID[:-1] + b",}", VALID + b"x", VALID + VALID, b"{'model': 'm-openai'}", b"{", b"\x00", b"nul"],
    ids=["cut", "trailing_comma", "garbage_after", "two_documents", "single_quotes", "open_brace", "nul", "word"],
)
async def test_a1_malformed_json_is_400(shared_house: House, body: bytes) -> None:
    answer = await refused(shared_house, send(shared_house, body), 400, "invalid_json")
    assert answer.header("x-should-retry") == "false"


@given(at=st.integers(0, len(VALID) - 1), byte=st.integers(0, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a1_a_mutated_body_is_an_answer_or_a_json_error_never_500(
    shared_house: House, at: int, byte: int
) -> None:
    answer = await shared_house.door.raw(send(shared_house, VALID[:at] + bytes([byte]) + VALID[at + 1 :]))
    assert answer.status in (200, 400, 404), bytes(answer.body)
    if answer.status != 200:
        assert answer.error


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"x"', b"1", b" "], ids=["empty", "null", "list", "string", "number", "blank"]
)
async def test_a2_a_body_that_is_no_object_is_400(shared_house: House, body: bytes) -> None:
    await refused(shared_house, send(shared_house, body), 400)


async def test_a3_a_huge_content_length_is_413_at_once(shared_house: House) -> None:
    request = (
        f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {shared_house.door.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n"
    ).encode()
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        before = time.monotonic()
        await connection.send(request)
        answer = await connection.read_response()
        assert (answer.status, answer.code) == (413, "request_too_large")
        assert time.monotonic() - before < 0.1
        assert await connection.is_closed()


async def test_a4_a_chunked_body_over_the_limit_is_413_at_the_limit(shared_house: House) -> None:
    request = (
        f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {shared_house.door.key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(request)
        for _ in range(11):
            await connection.send(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        answer = await connection.read_response()
        assert (answer.status, answer.code) == (413, "request_too_large")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_a6_an_encoded_body_is_415(shared_house: House, coding: str) -> None:
    bomb = gzip.compress(b" " * 1_000_000)
    await refused(shared_house, send(shared_house, bomb, f"Content-Encoding: {coding}"), 415, "unsupported_media_type")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["lists", "objects"])
async def test_a7_deep_nesting_is_400_and_does_not_block(shared_house: House, opening: bytes) -> None:
    deep = with_raw(b'"metadata":' + opening * 100_000)
    closed = with_raw(b'"metadata":' + opening * 100_000 + b"1" + (b"]" if opening == b"[" else b"}") * 100_000)
    async with loop_is_never_blocked(0.1):
        await refused(shared_house, send(shared_house, deep), 400)
        await refused(shared_house, send(shared_house, closed), 400)


async def test_a8_of_duplicate_keys_the_one_that_is_priced_is_the_one_that_is_sent(shared_house: House) -> None:
    tag = shared_house.tag()
    body = b'{"model":"m-openai","max_tokens":1,"user":"%b","messages":[{"role":"user","content":"hi"}],' % tag.encode()
    answer = await shared_house.door.raw(send(shared_house, body + b'"model":"m-qwen","max_tokens":700}'))
    if answer.status == 400:
        assert answer.error
        return
    row, received = await shared_house.door.row(answer), shared_house.fu.one(tag)
    assert received.path.startswith("/" + row["model"].removeprefix("m-") + "/")
    assert (received.body.count(b'"model"'), received.body.count(b'"max_tokens"')) == (1, 1)
    assert received.json["model"] == row["upstream_model"]
    output = received.json["max_tokens"] * float(shared_house.price(row["model"])["output"]) / 1e6
    assert float(row["hold"]) >= output


@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
@pytest.mark.parametrize("name", [b"temperature", b"something"])
async def test_a9_numbers_that_are_none_are_400(shared_house: House, literal: bytes, name: bytes) -> None:
    await refused(shared_house, send(shared_house, with_raw(b'"%b":%b' % (name, literal))), 400)


@pytest.mark.parametrize("literal", [b"9" * 5000, b"9223372036854775808", b"18446744073709551616"])
@pytest.mark.parametrize("name", [b"max_completion_tokens", b"n", b"top_logprobs"])
async def test_a10_integers_beyond_measure_are_400(shared_house: House, literal: bytes, name: bytes) -> None:
    body = with_raw(b'"%b":%b' % (name, literal)).replace(b'"max_tokens":16,', b"")
    await refused(shared_house, send(shared_house, body), 400)


WRONG: dict[str, list[Any]] = {
    "max_tokens": ["10", True, 1.5, -1, 0, 2**31, [], {}, 8193],
    "max_completion_tokens": ["10", True, 1.5, -1, 0, 2**31, 8193],
    "temperature": ["1", True, -0.1, 2.1, 3, []],
    "top_p": ["1", True, -0.1, 1.1],
    "frequency_penalty": ["1", True, -2.1, 2.1],
    "presence_penalty": ["1", False, -2.1, 2.1],
    "n": ["1", True, 1.5, 0, -1, 129],
    "top_logprobs": ["1", True, -1, 21],
    "stream": ["true", 1, 0, []],
    "messages": ["hi", {}, [], [1], ["x"]],
    "model": [1, True, [], {}, ""],
}


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, values in WRONG.items() for v in values])
async def test_a11_a12_a33_a_parameter_of_a_wrong_type_or_range_is_400_and_named(
    shared_house: House, name: str, value: Any
) -> None:
    members: dict[str, Any] = {name: value}
    if name == "max_completion_tokens":
        members["max_tokens"] = ...
    if name == "top_logprobs":
        members["logprobs"] = True
    answer = await refused(
        shared_house, send(shared_house, shared_house.door.body(**members)), 400, "invalid_parameter"
    )
    assert str(answer.error["param"]).split(".")[0].split("[")[0] == name


async def test_a11_both_limits_at_once_are_400(shared_house: House) -> None:
    body = shared_house.door.body(max_tokens=10, max_completion_tokens=10)
    await refused(shared_house, send(shared_house, body), 400)


@pytest.mark.parametrize(
    "members",
    [{"best_of": 2}, {"service_tier": "priority"}, {"enable_search": True}, {"web_search_options": {}},
     {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]}],
    ids=lambda members: next(iter(members)),
)  # fmt: skip
async def test_a12_what_changes_the_price_behind_our_back_is_400(shared_house: House, members: dict[str, Any]) -> None:
    answer = await refused(shared_house, send(shared_house, shared_house.door.body(**members)), 400)
    assert answer.code == "unsupported_parameter"


async def test_a12_n_multiplies_the_hold(shared_house: House) -> None:
    holds = []
    for n in (1, 2, 4):
        asked = await shared_house.ask(n=n)
        holds.append(reckon.nano((await asked.is_exact())["hold"]))
    one = 512 * 1930  # nano-units of the output of one choice
    assert holds[1] - holds[0] == pytest.approx(one, rel=0.01)
    assert holds[2] - holds[1] == pytest.approx(2 * one, rel=0.01)


@pytest.mark.parametrize("members", [{"seed": 2**40}, {"logit_bias": {"1": 1000}}, {"verbosity": 9}], ids=str)
async def test_a13_what_only_the_provider_can_judge_is_forwarded_and_its_400_comes_back(
    shared_house: House, members: dict[str, Any]
) -> None:
    asked = await shared_house.ask(error(400, message="seed is wrong", type="invalid_request_error"), **members)
    assert asked.received.json.items() >= members.items()
    assert (asked.answer.status, asked.answer.code) == (400, "invalid_parameter")
    await asked.is_void()


async def test_a14_unknown_parameters_are_forwarded_and_configure_nothing(shared_house: House) -> None:
    members = {
        "api_base": "http://127.0.0.1:1/",
        "base_url": "http://127.0.0.1:1/",
        "api_key": "other",
        "zzz": {"a": [1]},
    }
    asked = await shared_house.ask(None, **members)
    assert asked.answer.status == 200
    assert asked.received.json.items() >= members.items()
    assert asked.received.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    await asked.is_exact()


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\udc00\\ud800"],
    ids=["not_utf8", "cut_utf8", "utf8_surrogate", "lone_high", "reversed_pair"],
)  # fmt: skip
async def test_a15_text_that_is_no_unicode_is_400(shared_house: House, text: bytes) -> None:
    await refused(shared_house, send(shared_house, VALID.replace(b"hi", text)), 400)


async def test_a16_nul_in_an_id_is_400(shared_house: House) -> None:
    await refused(shared_house, send(shared_house, VALID.replace(b"m-openai", b"m-\\u0000openai")), 400)
    await refused(shared_house, send(shared_house, with_raw(b'"user":"a\\u0000b"')), 400)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
async def test_a17_other_encodings_are_400(shared_house: House, encoding: str) -> None:
    await refused(shared_house, send(shared_house, VALID.decode().encode(encoding)), 400)


@pytest.mark.parametrize(
    "line", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_a18_another_content_type_is_415(shared_house: House, line: str | None) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {shared_house.door.key}\r\n"
    head += f"Content-Length: {len(VALID)}\r\n" + ("" if line is None else f"Content-Type: {line}\r\n")
    await refused(shared_house, head.encode() + b"\r\n" + VALID, 415, "unsupported_media_type")


async def test_a18_json_with_a_charset_is_taken(shared_house: House) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {shared_house.door.key}\r\n"
    head += f"Content-Length: {len(VALID)}\r\nContent-Type: Application/JSON; charset=UTF-8\r\n\r\n"
    assert (await shared_house.door.raw(head.encode() + VALID)).status == 200


async def test_a19_an_unknown_model_is_404_and_no_label(shared_house: House) -> None:
    body = shared_house.door.body(model="no-such-model-kq7")
    answer = await refused(shared_house, send(shared_house, body), 404, "model_not_found")
    assert answer.header("x-should-retry") == "false"
    assert b"no-such-model-kq7" not in (await shared_house.door.operators("/metrics")).body


@pytest.mark.parametrize(
    "model", ["http://127.0.0.1:1/v1", "../m-openai", "m-openai\r\nX: y", "x" * 10_000, "M-OPENAI", " m-openai"],
    ids=["url", "parent", "crlf", "10kB", "case", "blank"],
)  # fmt: skip
async def test_a20_a_model_name_is_only_a_name(shared_house: House, model: str) -> None:
    answer = await refused(shared_house, send(shared_house, shared_house.door.body(model=model)), (400, 404))
    assert len(answer.body) < 2_000
    assert answer.header("x") is None


@pytest.mark.parametrize(
    "extra", [[f"X-Long: {'a' * 8_300}"], [f"X-{i}: a" for i in range(140)]], ids=["line", "count"]
)
async def test_a21_headers_over_the_limits_are_refused_in_json(shared_house: House, extra: list[str]) -> None:
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(send(shared_house, VALID, *extra))
        answer = await connection.read_response()
        assert answer.status in (400, 431)
        assert answer.code in ("invalid_http", "headers_too_large")
        assert await connection.is_closed()


async def test_a21_a_head_that_comes_byte_by_byte_is_served(shared_house: House) -> None:
    async with shared_house.door.connect() as connection:
        for byte in send(shared_house, VALID):
            await connection.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await connection.read_response()).status == 200


SMUGGLED = {
    "cl_te": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "two_cl": "Content-Length: 5\r\nContent-Length: 6",
    "te_unknown": "Transfer-Encoding: xchunked",
    "te_twice": "Transfer-Encoding: chunked, chunked",
    "obs_fold": "X-A: b\r\n c\r\nContent-Length: 5",
    "space_before_colon": "Content-Length : 5",
    "signed_cl": "Content-Length: +5",
    "hex_cl": "Content-Length: 0x5",
    "nul": "X-A: b\x00c\r\nContent-Length: 5",
}


@pytest.mark.parametrize("lines", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_a22_ambiguous_framing_is_400_and_never_a_second_request(shared_house: House, lines: str) -> None:
    first = f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {shared_house.door.key}\r\n"
    first += f"Content-Type: application/json\r\n{lines}\r\n\r\n"
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(first.encode("latin-1") + b"0\r\n\r\n" + send(shared_house, VALID))
        answer = await connection.read_response()
        assert answer.status in (400, 415), answer
        assert answer.error
        assert await connection.is_closed()


async def test_a23_pipelined_requests_are_answered_in_order_and_each_is_metered(shared_house: House) -> None:
    tags = [shared_house.tag() for _ in range(5)]
    async with shared_house.door.connect() as connection:
        await connection.send(b"".join(shared_house.door.request(tag, n=i + 1) for i, tag in enumerate(tags)))
        for i, tag in enumerate(tags):
            answer = await connection.read_response()
            assert len(answer.json["choices"]) == i + 1
            row = await shared_house.door.row(answer)
            usage = shared_house.fu.one(tag).usage
            assert usage is not None
            assert reckon.nano(row["charge"]) == reckon.charge_nano(usage, shared_house.price("m-openai"))


async def test_a24_a26_silent_and_half_spoken_connections_are_closed(shared_house: House) -> None:
    async with shared_house.nothing_happens():
        for opening in (b"", b"POST /v1/ch", b"POST /v1/chat/completions HTTP/1.1\r\nHost: door\r\nX-A"):
            async with shared_house.door.connect() as connection:
                await connection.send(opening)
                before = time.monotonic()
                try:
                    answer = await connection.read_response(timeout_s=5)
                    assert answer.status == 408
                    assert answer.code == "request_timeout"
                except ConnectionError:
                    pass
                assert time.monotonic() - before < 3


async def test_a25_a_slow_body_is_408(shared_house: House) -> None:
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(send(shared_house, VALID)[:-20])
        answer = await connection.read_response(timeout_s=5)
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert await connection.is_closed()


@pytest.mark.parametrize("case", ["bad_key", "too_large"])
async def test_a27_expect_100_continue_is_refused_before_the_body(shared_house: House, case: str) -> None:
    key = "sk-ai-nexus-nonsense" if case == "bad_key" else shared_house.door.key
    length = 100 if case == "bad_key" else 11 * 1024 * 1024
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    )
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(head.encode())
        answer = await connection.read_head(skip_informational=False)
        assert answer.status == (401 if case == "bad_key" else 413)


async def test_a27_expect_100_continue_works_for_a_good_request(shared_house: House) -> None:
    request = send(shared_house, VALID, "Expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")
    async with shared_house.door.connect() as connection:
        await connection.send(head + b"\r\n\r\n")
        assert (await connection.read_head(skip_informational=False)).status == 100
        await connection.send(body)
        assert (await connection.read_response()).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_a28_other_methods_are_405(shared_house: House, method: str) -> None:
    answer = await refused(shared_house, get(CHAT, shared_house.door.key, method=method), 405, "method_not_allowed")
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


async def test_a28_head_is_405_without_a_body(shared_house: House) -> None:
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(get(CHAT, shared_house.door.key, method="HEAD"))
        assert (await connection.read_head()).status == 405


async def test_a28_connect_is_refused(shared_house: House) -> None:
    await refused(shared_house, get("example.com:443", shared_house.door.key, method="CONNECT"), (400, 404, 405))


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//v1/chat/completions",
            "/v1/../admin",
            "/v1/chat/completions/",
            "/v1/%2e%2e%2fadmin",
            "/v1/chat%252fcompletions",
        ),
        *("/", "/v1", "/admin", "/metrics", "/healthz", "/readyz", "/account_create", "/v1/chat/completions/../../x"),
        "/v1%2Fchat%2Fcompletions",
    ],
)
async def test_a29_f14_f26_other_paths_are_404(shared_house: House, path: str) -> None:
    await refused(shared_house, post(path, VALID, shared_house.door.key), 404, "not_found")


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/v1/chat/completions", "*", "http://other/admin"])
async def test_a29_absolute_form_and_asterisk_reach_no_other_host(shared_house: House, target: str) -> None:
    answer = await shared_house.door.raw(post(target, VALID, shared_house.door.key))
    assert answer.status in (200, 400, 404, 405)
    if answer.status == 200:
        assert shared_house.fu.received[-1].path == "/openai/v1/chat/completions"
    else:
        assert answer.error


async def test_a31_a_million_tiny_messages_do_not_block_the_loop(shared_house: House) -> None:
    async with loop_is_never_blocked(0.1):
        many = b'{"model":"m-openai","messages":[' + b"{}," * 1_000_000 + b"{}]}"
        await refused(shared_house, send(shared_house, many), (400, 413))


async def test_a31_large_prompts_are_read_one_after_the_other(
    shared_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    reading = 0
    to_thread = asyncio.to_thread

    async def counted(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal reading
        reading += 1
        at_once.append(reading)
        await asyncio.sleep(0.02)
        try:
            return await to_thread(function, *arguments)
        finally:
            reading -= 1

    monkeypatch.setattr(asyncio, "to_thread", counted)
    body = shared_house.door.body(messages=[{"role": "user", "content": "x" * 300_000}])
    answers = await asyncio.gather(*(shared_house.door.raw(send(shared_house, body)) for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert at_once == [1, 1, 1, 1]


async def test_a31_c1_a_large_prompt_of_who_left_before_its_turn_is_not_read(
    shared_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Withheld(monkeypatch)
    door = shared_house.door
    before = len(door.rows())
    prompt = [{"role": "user", "content": "x" * 300_000}]
    first = asyncio.create_task(door.chat(messages=prompt))
    await eventually(lambda: threads.asked == 1)
    for _ in range(3):
        async with door.connect() as leaver:
            await leaver.send(door.request(messages=prompt))
            await asyncio.sleep(0.05)
    last = asyncio.create_task(door.chat(messages=prompt))
    await asyncio.sleep(0.05)
    threads.go.set()
    assert [(await first).status, (await last).status] == [200, 200]
    assert threads.asked == 2
    assert len(door.rows()) == before + 2


@pytest.mark.parametrize("case", ["query", "two", "basic", "bare", "lower", "none"])
async def test_a32_a_key_anywhere_else_is_401(shared_house: House, case: str) -> None:
    key = shared_house.door.key
    path = f"{CHAT}?api_key={key}&key={key}" if case == "query" else CHAT
    lines = {
        "two": [f"Authorization: Bearer {key}", f"Authorization: Bearer {key}x"],
        "basic": [f"Authorization: Basic {key}"],
        "bare": [f"Authorization: {key}"],
        "lower": [f"X-Api-Key: {key}"],
    }.get(case, [])
    answer = await refused(shared_house, post(path, VALID, None, *lines), 401, "invalid_api_key")
    assert key.encode() not in answer.body


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(190))


@pytest.mark.parametrize(
    "data", [b"hello\r\n\r\n", TLS_HELLO + b"\r\n\r\n", b"\x00" * 64 + b"\r\n\r\n",
             b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
             b"GET /v1/models HTTP/1.1\r\nAuthorization Bearer\r\n\r\n", b"G\xc3\xa9T / HTTP/1.1\r\nHost: a\r\n\r\n"],
    ids=["word", "tls", "nuls", "version", "http2", "no_colon", "method"],
)  # fmt: skip
async def test_a34_what_is_not_http_gets_a_json_400_and_a_close(shared_house: House, data: bytes) -> None:
    async with shared_house.nothing_happens(), shared_house.door.connect() as connection:
        await connection.send(data)
        answer = await connection.read_response()
        assert answer.status in (400, 405, 505), answer
        assert answer.error
        assert await connection.is_closed()


async def test_a34_a_broken_head_never_echoes_the_key(shared_house: House) -> None:
    key = shared_house.door.key
    data = f"POST {CHAT} HTTP/1.1\r\nHost: door\r\nAuthorization: Bearer {key}\x01\r\n\r\n".encode()
    answer = await refused(shared_house, data, (400, 401))
    assert key.encode() not in answer.body
    assert orjson.loads(answer.body)
