"""Group B of the failure catalogue: what an upstream can do wrong, to a whole door through sockets.

Strategy: one script for each fault; then what the client saw, and what the ledger has, against the upstream's truth.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.rig import reckon
from tests.rig.answers import DONE, Answer, stream_of
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.house import Asked, House, open_house
from tests.rig.settings import PRICES, UPSTREAM_KEY
from tests.rig.steps import (
    LAST_CHUNK,
    Chunk,
    Close,
    Pause,
    Received,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    error,
    head,
    sse_head,
    whole,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = Answer(prompt=40, completion=12, cached=8).counts()
EXACT = Answer(prompt=40, completion=12, cached=8)


def delta(text: str, **more: Any) -> bytes:
    """Return one content event."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    return b"data: " + orjson.dumps({"id": "c", "object": "chat.completion.chunk", "choices": choices} | more) + b"\n\n"


def finish(**more: Any) -> bytes:
    """Return the event that finishes the only choice."""
    choices = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    return b"data: " + orjson.dumps({"id": "c", "object": "chat.completion.chunk", "choices": choices} | more) + b"\n\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rude() -> AsyncIterator[FaultUpstream]:
    """A second provider, for what is about connections and not about requests."""
    async with FaultUpstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad_house(rude: FaultUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A door with more providers: `rude`, `stale` (retries on a dead reused connection) and `closed`."""
    names = {"rude": f"{rude.url}/openai/v1", "stale": f"{rude.url}/openai/v1", "closed": "http://127.0.0.1:1/v1"}
    common = {"dialect": "openai", "allow_private": True, "api_key_env": "FU_KEY"}
    providers = {f"p-{n}": common | {"base_url": url, "retry_stale": n == "stale"} for n, url in names.items()}
    models = {
        f"m-{n}": {
            "provider": f"p-{n}",
            "upstream": n,
            "price": PRICES["openai"],
            "context": 131072,
            "max_output": 8192,
        }
        for n in names
    }
    async with open_house(tmp_path_factory.mktemp("bad"), {"providers": providers, "models": models}) as opened:
        yield opened


# --- before an answer ---------------------------------------------------------------------------------------------


async def test_b1_connection_refused_is_502_unreachable(bad_house: House) -> None:
    asked = await bad_house.ask(model="m-closed")
    assert (asked.answer.status, asked.answer.code) == (502, "upstream_unreachable")
    assert asked.answer.header("x-should-retry") != "false"
    await asked.is_void(received=0)


async def test_b5_a_reset_on_accept_is_502(bad_house: House, rude: FaultUpstream) -> None:
    rude.greeting = [Reset()]
    try:
        asked = await bad_house.ask(model="m-rude")
    finally:
        rude.greeting = ()
    assert asked.answer.status == 502
    assert asked.answer.code in ("upstream_unreachable", "upstream_broken")
    await asked.is_void(received=0)


@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "fin"])
async def test_b6_an_end_after_the_request_is_502_and_never_repeated(
    bad_house: House, rude: FaultUpstream, end: Step
) -> None:
    tag = bad_house.tag()
    rude.scripts[tag] = [end]
    answer = await bad_house.door.chat(tag, model="m-rude")
    assert (answer.status, answer.code) == (502, "upstream_broken")
    assert answer.header("x-should-retry") == "false"
    assert len(rude.of(tag)) == 1
    row = await bad_house.door.row(answer)
    assert (reckon.nano(row["charge"]), row["usage_source"]) == (0, "none")


@pytest.mark.parametrize("model", ["m-stale", "m-rude"])
async def test_b7_a_dead_reused_connection_is_tried_once_more_only_if_configured(
    bad_house: House, rude: FaultUpstream, model: str
) -> None:
    used: set[int] = set()

    def only_once_a_connection(received: Received) -> Script:
        if received.connection in used:
            return [Reset()]
        used.add(received.connection)
        return EXACT.script(received)

    first, second = bad_house.tag(), bad_house.tag()
    rude.scripts[first] = rude.scripts[second] = only_once_a_connection
    assert (await bad_house.door.chat(first, model=model)).status == 200
    answer = await bad_house.door.chat(second, model=model)
    row = await bad_house.door.row(answer)
    if model == "m-stale":
        assert answer.status == 200
        assert len(rude.of(second)) == 2
        assert reckon.nano(row["charge"]) == reckon.charge_nano(USAGE, PRICES["openai"])
    else:
        assert answer.status == 502
        assert len(rude.of(second)) == 1
        assert reckon.nano(row["charge"]) == 0


async def test_b7_an_idle_connection_that_the_provider_closed_is_not_used(
    bad_house: House, rude: FaultUpstream
) -> None:
    first, second = bad_house.tag(), bad_house.tag()
    rude.scripts[first] = lambda received: [*EXACT.script(received), Close()]
    assert (await bad_house.door.chat(first, model="m-rude")).status == 200
    await rude.wait_for(1, first, ended=True)
    await asyncio.sleep(0.05)  # the FIN is on its way through the kernel
    assert (await bad_house.door.chat(second, model="m-rude")).status == 200
    assert len(rude.of(second)) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_b8_headers_that_never_come_are_504(bad_house: House, stream: bool) -> None:
    asked = await bad_house.ask([Stall()], stream=stream)
    assert (asked.answer.status, asked.answer.code) == (504, "upstream_timeout")
    assert asked.answer.header("x-should-retry") == "false"
    assert (await asked.is_void())["end_state"] == "timeout"


async def test_b8_a_head_without_a_body_is_504_too(bad_house: House) -> None:
    asked = await bad_house.ask([sse_head(), Stall()], stream=True)
    assert (asked.answer.status, asked.answer.code) == (504, "upstream_timeout")


NO_FUNDS = [
    ("m-deepseek", 402, {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}),
    ("m-qwen", 400, {"message": "Access denied, account in arrears.", "type": "Arrearage", "code": "Arrearage"}),
    ("m-moonshot", 429, {"message": "account suspended: insufficient balance", "type": "exceeded_current_quota_error"}),
    (
        "m-openai",
        429,
        {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"},
    ),
    ("m-openai", 402, {"message": "pay"}),
]
REFUSALS: list[tuple[str, str, int, dict[str, Any], int, str]] = [
    ("b9_400", "m-openai", 400, {"message": "bad", "type": "invalid_request_error"}, 400, "invalid_parameter"),
    ("b9_422", "m-openai", 422, {"message": "bad"}, 400, "invalid_parameter"),
    (
        "b9_content",
        "m-qwen",
        400,
        {"message": "inappropriate", "code": "data_inspection_failed"},
        400,
        "invalid_parameter",
    ),
    ("b10_401", "m-openai", 401, {"message": f"wrong key {UPSTREAM_KEY}"}, 502, "upstream_auth"),
    ("b10_403", "m-openai", 403, {"message": f"wrong key {UPSTREAM_KEY}"}, 502, "upstream_auth"),
    ("b10_404", "m-openai", 404, {"message": "no such model real-openai"}, 502, "upstream_model"),
    *((f"b11_{m}_{s}_{i}", m, s, e, 503, "upstream_no_funds") for i, (m, s, e) in enumerate(NO_FUNDS)),
    ("b12_429", "m-openai", 429, {"message": "slow down", "type": "rate_limit_error"}, 429, "upstream_rate_limited"),
    ("b13_500", "m-openai", 500, {"message": "oops"}, 502, "upstream_broken"),
    ("b13_502", "m-openai", 502, {"message": "oops"}, 502, "upstream_broken"),
    ("b13_503", "m-openai", 503, {"message": "busy"}, 503, "upstream_overloaded"),
    ("b13_529", "m-openai", 529, {"message": "busy"}, 503, "upstream_overloaded"),
    ("b13_418", "m-openai", 418, {"message": "teapot"}, 502, "upstream_broken"),
]


@pytest.mark.parametrize(
    ("model", "status", "body", "ours", "code"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_b9_b13_an_error_of_the_provider_is_rebuilt_in_our_shape(
    bad_house: House, model: str, status: int, body: dict[str, Any], ours: int, code: str, stream: bool
) -> None:
    asked = await bad_house.ask(error(status, "Retry-After: 7", "X-Secret: leaked", **body), model=model, stream=stream)
    answer = asked.answer
    assert (answer.status, answer.code) == (ours, code), bytes(answer.body)
    assert UPSTREAM_KEY.encode() not in answer.body
    assert answer.header("x-secret") is None
    if ours != 400:
        assert str(body["message"]).encode() not in answer.body
    retries = code in ("upstream_rate_limited", "upstream_overloaded")
    assert (answer.header("x-should-retry") == "false") is not retries
    if retries:
        assert answer.header("retry-after") == "7"
    assert (await asked.is_void())["end_state"] == "upstream_error"


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b'"text"', b"{", b"\xff\xfe", b"[1]"], ids=repr)
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_b13_an_error_with_any_body_is_an_error_of_our_shape(bad_house: House, status: int, body: bytes) -> None:
    asked = await bad_house.ask(whole(status, body, content_type="text/html"))
    assert (asked.answer.status, asked.answer.error["type"]) != (200, "")
    assert asked.answer.status == {400: 400, 429: 429, 500: 502}[status]
    assert b"html" not in asked.answer.body
    await asked.is_void()


async def test_b14_html_under_a_200_is_relayed_and_costs_nothing(bad_house: House) -> None:
    page = b"<html>hello</html>"
    asked = await bad_house.ask(whole(200, page, content_type="text/html"))
    assert asked.answer.complete
    assert (asked.answer.status, bytes(asked.answer.body)) in ((200, page),)
    await asked.is_void()


DISGUISED: list[tuple[str, dict[str, Any], int, str]] = [
    ("error", {"error": {"message": "x", "type": "server_error", "code": "oops"}}, 502, "upstream_broken"),
    ("rate", {"error": {"message": "x", "type": "rate_limit_error"}}, 429, "upstream_rate_limited"),
    ("auth", {"error": {"message": f"{UPSTREAM_KEY}", "code": "invalid_api_key"}}, 502, "upstream_auth"),
    ("funds", {"error": {"message": "Insufficient Balance", "code": "x"}}, 503, "upstream_no_funds"),
    ("request", {"error": {"message": "x", "type": "invalid_request_error"}}, 400, "invalid_parameter"),
]


@pytest.mark.parametrize(("body", "ours", "code"), [d[1:] for d in DISGUISED], ids=[d[0] for d in DISGUISED])
@pytest.mark.parametrize("form", ["b15_json", "b15_json_stream", "b16_first_event", "b16_after_comment"])
async def test_b15_b16_an_error_under_a_200_is_the_mapped_http_error(
    bad_house: House, body: dict[str, Any], ours: int, code: str, form: str
) -> None:
    data = orjson.dumps(body)
    scripts: dict[str, Script] = {
        "b15_json": whole(200, data),
        "b15_json_stream": whole(200, data),
        "b16_first_event": stream_of(b"data: " + data + b"\n\n"),
        "b16_after_comment": stream_of(b"\n\ndata: " + data + b"\n\n", DONE),
    }
    asked = await bad_house.ask(scripts[form], stream=form != "b15_json")
    assert (asked.answer.status, asked.answer.code) == (ours, code), bytes(asked.answer.body)
    assert UPSTREAM_KEY.encode() not in asked.answer.body
    await asked.is_void()


# --- an answer that breaks off ------------------------------------------------------------------------------------

SHORT_STREAM = [delta("one "), delta("twö "), delta("three "), finish(usage=USAGE), DONE]


def assert_cut(asked: Asked, prefix: bytes) -> None:
    """The client has that prefix, then at most our one error event, and no last chunk."""
    body = bytes(asked.answer.body)
    assert asked.answer.status == 200
    assert not asked.answer.saw_last_chunk
    assert asked.answer.ending in ("closed", "reset")
    assert body.startswith(prefix), body
    rest = body[len(prefix) :]
    if rest:
        assert prefix.endswith(b"\n\n")
        assert rest.startswith(b"data: {")
        assert rest.endswith(b"\n\n")
        assert rest.count(b"\n\n") == 1
        event = orjson.loads(rest[6:])
        assert list(event) == ["error"]
        assert set(event["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("end", [Reset(), Close()], ids=["reset", "fin"])
@pytest.mark.parametrize("count", range(1, 5))
async def test_b17_a_cut_after_k_events_is_one_error_event_and_no_last_chunk(
    bad_house: House, count: int, end: Step
) -> None:
    chunks = [Chunk(e, USAGE if e is SHORT_STREAM[3] else None) for e in SHORT_STREAM[:count]]
    asked = await bad_house.ask([sse_head(), *chunks, end], stream=True, model="m-deepseek")
    prefix = b"".join(SHORT_STREAM[:count])
    assert_cut(asked, prefix)
    assert len(asked.answer.body) > len(prefix), "the error event is missing"
    if count == 4:
        row = await asked.is_exact("cumulative")
    else:
        row = await asked.is_estimate()
    assert row["end_state"] == "upstream_cut"


async def test_b17_usage_of_every_chunk_makes_a_cut_exact(bad_house: House) -> None:
    last = USAGE | {"completion_tokens": 7}
    events = [delta("a", usage=USAGE | {"completion_tokens": 3}), delta("b", usage=last)]
    asked = await bad_house.ask([sse_head(), Chunk(events[0]), Chunk(events[1], last), Reset()], stream=True)
    assert_cut(asked, b"".join(events))
    await asked.is_exact("cumulative")


@pytest.mark.parametrize("at", range(1, len(b"".join(SHORT_STREAM[:3])), 11))
async def test_b18_a_cut_at_any_byte_delivers_the_prefix_and_no_last_chunk(bad_house: House, at: int) -> None:
    data = b"".join(SHORT_STREAM[:3])
    asked = await bad_house.ask([sse_head(), Send(b"%x\r\n" % len(data) + data[:at]), Close()], stream=True)
    if asked.answer.status == 200:
        assert_cut(asked, data[:at])
        await asked.is_estimate()
    else:  # not one event had come, so the headers had not gone out
        assert at <= len(SHORT_STREAM[0])
        assert (asked.answer.status, asked.answer.code) == (502, "upstream_broken")


async def test_b19_a_body_shorter_than_its_length_never_looks_complete(bad_house: House) -> None:
    data = Answer().document({})
    first = head(200, "Content-Type: application/json", f"Content-Length: {len(data)}")
    short: list[Step] = [first, Send(data[:-10]), Close()]
    asked = await bad_house.ask(short)
    assert asked.answer.status >= 500 or not asked.answer.complete
    assert (await asked.is_estimate())["end_state"] == "upstream_cut"


async def test_b20_no_done_but_all_finished_closes_normally(bad_house: House) -> None:
    events = [delta("one"), finish(usage=USAGE)]
    asked = await bad_house.ask(stream_of(*events, usage=USAGE), stream=True, model="m-deepseek")
    assert asked.answer.saw_last_chunk
    assert bytes(asked.answer.body) == b"".join(events)
    assert (await asked.is_exact())["end_state"] == "complete"


async def test_b21_an_end_without_done_finish_or_usage_is_a_cut(bad_house: House) -> None:
    events = [delta("one"), delta("two")]
    asked = await bad_house.ask(stream_of(*events), stream=True)
    assert_cut(asked, b"".join(events))
    assert (await asked.is_estimate())["end_state"] == "upstream_cut"


async def test_b22_a_stall_in_the_middle_is_an_error_event_and_a_close(bad_house: House) -> None:
    asked = await bad_house.ask([sse_head(), Chunk(SHORT_STREAM[0]), Stall()], stream=True)
    assert_cut(asked, SHORT_STREAM[0])
    assert b"upstream_timeout" in asked.answer.body
    assert (await asked.is_estimate())["end_state"] == "timeout"


async def test_b24_a_complete_answer_without_usage_is_estimated_and_counted(bad_house: House) -> None:
    before = await bad_house.door.metric("nexus_usage_missing_total", provider="p-qwen")
    for stream in (False, True):
        asked = await bad_house.ask(Answer(shape="qwen", usage=False).script, stream=stream, model="m-qwen")
        assert asked.answer.complete
        assert (await asked.is_estimate())["end_state"] == "complete"
    assert await bad_house.door.metric("nexus_usage_missing_total", provider="p-qwen") == before + 2


@pytest.mark.parametrize("second", [12, 20], ids=["same", "larger"])
async def test_b25_of_two_usages_the_last_counts_and_once(bad_house: House, second: int) -> None:
    last = USAGE | {"completion_tokens": second}
    events = [delta("one"), finish(usage=USAGE), b'data: {"choices":[],"usage":' + orjson.dumps(last) + b"}\n\n", DONE]
    asked = await bad_house.ask(stream_of(*events, usage=last), stream=True, stream_options={"include_usage": True})
    assert bytes(asked.answer.body) == b"".join(events)
    await asked.is_exact()


async def test_b26_usage_in_every_chunk_is_never_summed(bad_house: House) -> None:
    counts = [USAGE | {"completion_tokens": n} for n in (1, 5, 12)]
    events = [
        delta("a", usage=counts[0]),
        delta("b", usage=None),
        delta("c", usage=counts[1]),
        finish(usage=counts[2]),
        DONE,
    ]
    asked = await bad_house.ask(stream_of(*events, usage=counts[2]), stream=True, model="m-deepseek")
    assert bytes(asked.answer.body) == b"".join(events)
    await asked.is_exact()


STRANGE = [-1, -(10**30), 1.5, "12", True, 10**30, 2**63, 10**12, None, [], {}]


@pytest.mark.parametrize("value", STRANGE, ids=repr)
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_b28_e16_a_count_that_cannot_be_never_credits_and_never_breaks(
    bad_house: House, name: str, value: Any, stream: bool
) -> None:
    text = orjson.dumps({"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52} | {name: "@"})
    usage = text.replace(b'"@"', repr(value).replace("True", "true").replace("None", "null").replace("'", '"').encode())
    if stream:
        script = stream_of(delta("one"), finish()[:-3] + b',"usage":' + usage + b"}\n\n", DONE)
    else:
        script = whole(200, Answer(usage=False).document({})[:-1] + b',"usage":' + usage + b"}")
    tag = bad_house.tag()
    bad_house.fu.scripts[tag] = script
    key = await bad_house.door.mint(tag, topup="5.00")
    answer = await bad_house.door.chat(tag, key=key, stream=stream, model="m-deepseek")
    assert answer.complete
    assert usage in answer.body
    row, money = await bad_house.door.row(answer), bad_house.door.account(tag)
    assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"]), row
    assert money["balance"] == 5 - Fraction(str(row["charge"])) >= 0
    assert money["held"] == 0


async def test_b30_usage_and_frames_inside_the_text_are_only_text(bad_house: House) -> None:
    text = (
        '"usage":{"prompt_tokens":1,"completion_tokens":1}\n\ndata: {"usage":{"prompt_tokens":9}}\n\ndata: [DONE]\n\n'
    )
    for stream in (False, True):
        asked = await bad_house.ask(replace(EXACT, text=text).script, stream=stream)
        assert asked.answer.complete
        await asked.is_exact()
    event = delta(text, note='"usage": {"prompt_tokens": 1, "completion_tokens": 1}')
    asked = await bad_house.ask(
        stream_of(event, finish(usage=USAGE), DONE, usage=USAGE), stream=True, model="m-deepseek"
    )
    await asked.is_exact()


FRAMINGS: dict[str, bytes] = {
    "crlf": b"".join(SHORT_STREAM).replace(b"\n", b"\r\n"),
    "cr": b"".join(SHORT_STREAM).replace(b"\n", b"\r"),
    "mixed": b"".join(e.replace(b"\n", (b"\r\n", b"\n", b"\r")[i % 3]) for i, e in enumerate(SHORT_STREAM)),
    "no_space": b"".join(SHORT_STREAM).replace(b"data: ", b"data:"),
    "named": b"".join(b"event: message\nid: 7\nretry: 10\n" + e for e in SHORT_STREAM),
    "bom": b"\xef\xbb\xbf" + b"".join(SHORT_STREAM),
    "comments": b": hello\n\n" + b": keep-alive\n\n".join(SHORT_STREAM),
    "blank_lines": b"\n\n\n" + b"\n\n".join(SHORT_STREAM),
    "multi_line": b"".join(SHORT_STREAM).replace(b'"choices":', b'\ndata: "choices":'),
}  # fmt: skip


@pytest.mark.parametrize("body", FRAMINGS.values(), ids=FRAMINGS.keys())
async def test_b33_any_sse_framing_is_relayed_to_the_byte_and_metered(bad_house: House, body: bytes) -> None:
    for cut in (None, 1, 7, len(body) // 2, len(body) - 3):
        pieces = [body] if cut is None else [body[:cut], body[cut:]]
        asked = await bad_house.ask(stream_of(*pieces, usage=USAGE), stream=True, model="m-deepseek")
        assert asked.answer.saw_last_chunk
        assert bytes(asked.answer.body) == body
        await asked.is_exact()


async def test_b34_one_line_of_10_mb_is_forwarded(bad_house: House) -> None:
    huge = delta("x" * 10_000_000)
    script = stream_of(delta("a"), huge, finish(usage=USAGE), DONE, usage=USAGE)
    asked = await bad_house.ask(script, stream=True, model="m-deepseek")
    assert asked.answer.saw_last_chunk
    assert len(asked.answer.body) == len(huge) + sum(map(len, (delta("a"), finish(usage=USAGE), DONE)))
    await asked.is_exact()


# --- HTTP that is odd ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_b36_informational_responses_are_passed_over(bad_house: House, stream: bool) -> None:
    hints = Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    asked = await bad_house.ask(lambda received: [hints, *EXACT.script(received)], stream=stream)
    assert asked.answer.status == 200
    assert asked.answer.complete
    await asked.is_exact()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_b37_f8_a_redirect_is_not_followed(bad_house: House, rude: FaultUpstream, status: int) -> None:
    before = rude.connections
    asked = await bad_house.ask(whole(status, b"", f"Location: {rude.url}/v1/chat/completions"))
    assert (asked.answer.status, asked.answer.code) == (502, "upstream_broken")
    assert asked.answer.header("location") is None
    assert rude.connections == before
    await asked.is_void()


def malformed(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> list[Step]:
    """Return a response with these raw header lines and a body of a good answer."""
    return [
        Send(b"\r\n".join([first, b"Content-Type: application/json", *lines, b"", b""])),
        Send(Answer().document({})),
    ]


SIZE = len(Answer().document({}))
MALFORMED: dict[str, list[Step]] = {
    "two_lengths": malformed(b"Content-Length: %d" % SIZE, b"Content-Length: 5"),
    "length_word": malformed(b"Content-Length: many"),
    "length_negative": malformed(b"Content-Length: -5"),
    "cl_and_te": malformed(b"Content-Length: %d" % SIZE, b"Transfer-Encoding: chunked"),
    "nul": malformed(b"X-A: b\x00c", b"Content-Length: %d" % SIZE),
    "cr_in_reason": malformed(b"Content-Length: %d" % SIZE, first=b"HTTP/1.1 200 O\rK: x"),
    "not_http": [Send(b"SSH-2.0-OpenSSH\r\n\r\n")],
    "bad_chunk": [sse_head(), Send(b"zz\r\nhello\r\n0\r\n\r\n")],
}


@pytest.mark.parametrize("script", MALFORMED.values(), ids=MALFORMED.keys())
async def test_b38_a_malformed_response_is_502_and_the_connection_is_dropped(bad_house: House, script: Script) -> None:
    asked = await bad_house.ask([*script, Stall()])
    assert (asked.answer.status, asked.answer.code) == (502, "upstream_broken"), bytes(asked.answer.body)
    await bad_house.fu.wait_for(1, asked.tag, ended=True, timeout_s=3)
    assert asked.received.ended == "peer_gone"
    await asked.is_void()


async def test_b39_bytes_after_the_body_are_not_delivered_nor_the_connection_reused(bad_house: House) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def with_extra(received: Received) -> Script:
        steps = list(EXACT.script(received))
        last = steps.pop()
        assert isinstance(last, Send)
        return [*steps, Send(last.data + evil, last.usage)]

    asked = await bad_house.ask(with_extra)
    assert b"evil" not in asked.answer.body
    assert asked.answer.complete
    await asked.is_exact()
    after = await bad_house.ask()
    assert after.answer.status == 200
    assert b"evil" not in after.answer.body
    assert after.received.connection != asked.received.connection


@pytest.mark.parametrize("status", [204, 304])
async def test_b39_a_status_without_a_body_is_no_answer(bad_house: House, status: int) -> None:
    asked = await bad_house.ask([head(status, "Content-Length: 4"), Send(b"evil")])
    assert asked.answer.status == 502
    assert b"evil" not in asked.answer.body
    await asked.is_void()
    assert (await bad_house.ask()).answer.status == 200


async def test_b40_only_allowed_headers_come_through(bad_house: House) -> None:
    lines = ("Set-Cookie: a=b", "Server: fu", "X-Request-Id: theirs", "X-DS-Trace-Id: 7", "Keep-Alive: timeout=5",
             "Connection: keep-alive, X-Hop", "X-Hop: 1", "Proxy-Authenticate: Basic", "Via: 1.1 fu",
             "Access-Control-Allow-Origin: *", "X-Ratelimit-Limit-Requests: 9")  # fmt: skip
    for stream in (False, True):
        asked = await bad_house.ask(replace(EXACT, extra_headers=lines).script, stream=stream)
        names = {name for name, _ in asked.answer.headers}
        theirs = {"set-cookie", "x-ds-trace-id", "keep-alive", "x-hop", "proxy-authenticate", "via"}
        assert not names & (theirs | {"access-control-allow-origin"})
        values = {value for _, value in asked.answer.headers}
        assert not values & {"theirs", "fu", "9"}
        await asked.is_exact()


async def test_b42_a_stream_that_is_json_and_json_that_is_a_stream_are_relayed_and_metered(bad_house: House) -> None:
    body = {"stream": True, "stream_options": {"include_usage": True}}
    asked = await bad_house.ask(whole(200, EXACT.document({}), usage=EXACT.counts()), stream=True)
    assert asked.answer.json["object"] == "chat.completion"
    await asked.is_exact()
    events = [e.data for e in EXACT.events(body)]
    asked = await bad_house.ask(stream_of(*events, usage=EXACT.counts()))
    assert bytes(asked.answer.body) == b"".join(events)
    await asked.is_exact()


async def test_b43_keep_alive_before_an_answer_is_relayed_at_once(bad_house: House) -> None:
    for stream, first in ((False, b"\n\n\n"), (True, b": keep-alive\n\n")):
        go, tag = asyncio.Event(), bad_house.tag()
        body = b"".join(e.data for e in EXACT.events({"stream_options": {"include_usage": True}}))
        rest = body if stream else EXACT.document({})
        kind = "text/event-stream" if stream else "application/json"
        bad_house.fu.scripts[tag] = [
            head(200, f"Content-Type: {kind}", "Transfer-Encoding: chunked"),
            Chunk(first), Pause(go), Chunk(rest, EXACT.counts()), LAST_CHUNK,
        ]  # fmt: skip
        async with bad_house.door.connect() as connection:
            options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
            await connection.send(bad_house.door.request(tag, stream=stream, **options))
            answer = await connection.read_head()
            assert await connection.read_piece() == first
            go.set()
            await connection.read_rest()
        assert answer.complete
        assert bytes(answer.body) == first + rest
        await Asked(bad_house, tag, answer).is_exact()
