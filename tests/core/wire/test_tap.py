"""The tap: every golden answer at every cut gives the same bytes and the same counts."""

import json
import random
import re
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.jsonscan import DEPTH_MAX, KEY_BYTES_MAX, USAGE_BYTES_MAX, Scanner
from nexus_proxy.core.wire.tap import ANSWER_BYTES_MAX, EVENT_BYTES_MAX, JsonTap, SseTap, make_tap
from nexus_proxy.core.wire.usage import Usage, UsageShape, find

GOLDEN = Path(__file__).parents[2] / "golden"
PLAIN = Dialect("openai", ask_usage=False)
IN_CHOICE = Dialect("moonshot", ask_usage=False, usage=UsageShape(in_choice=True))
ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}


class Golden(NamedTuple):
    """One answer as a provider puts it on the wire, and what is to be read off it."""

    name: str
    body: bytes
    expect: dict[str, Any]

    def tap(self, drop: bool = False) -> Any:
        dialect = IN_CHOICE if self.expect["usage_in_choice"] else PLAIN
        return make_tap(self.expect["content_type"], dialect, drop_usage_event=drop)


def load(suffix: str) -> list[Golden]:
    paths = sorted(path for path in GOLDEN.glob(f"*.{suffix}") if not path.name.endswith(".expect.json"))
    return [Golden(p.name, p.read_bytes(), json.loads(p.with_name(p.name + ".expect.json").read_text())) for p in paths]


STREAMS = load("sse")
DOCUMENTS = load("json")
ANSWERS = [golden for golden in STREAMS if not golden.expect["refusal"]]


def chunk(text: str = "x", **more: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}}], **more}) + b"\n\n"


def stream(drop: bool = False, dialect: Dialect = PLAIN) -> Any:
    return SseTap(dialect, drop_usage_event=drop)


def document(dialect: Dialect = PLAIN) -> Any:
    return JsonTap(dialect)


USAGE = {"prompt_tokens": 9, "completion_tokens": 3}
USAGE_EVENT = b"data: " + orjson.dumps({"choices": [], "usage": USAGE}) + b"\n\n"
ERROR = b'data: {"error":{"message":"busy","code":429}}\n\n'
DONE = b"data: [DONE]\n\n"


def name_of(golden: Golden) -> str:
    return golden.name


def without_usage_event(body: bytes, end: bytes) -> bytes:
    """Remove the usage-only event, in a way of its own: by regular expression, from the line to its blank line."""
    return re.sub(rb'data: \{[^\r\n]*"choices":\[\],[^\r\n]*' + end * 2, b"", body)


def is_boundary(given: bytes) -> bool:
    """Tell whether these bytes are whole events, by their text alone."""
    lines = given.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    block = lines[:-1][max((n + 1 for n, line in enumerate(lines[:-1]) if not line), default=0) :]
    return not lines[-1] and all(line.startswith(b":") for line in block)


def check(golden: Golden, tap: Any, given: bytes, body: bytes) -> None:
    """Compare all that a tap remembers after the end, and what it gave, with what is right."""
    expect = golden.expect
    if expect["refusal"]:
        assert tap.refusal == tap.error is not None
        assert not tap.complete
        assert (given, tap.partial(), tap.release(), tap.usage, tap.began) == (b"", b"", b"", None, False)
        return
    assert tap.refusal is None
    assert (tap.usage and tap.usage._asdict()) == expect["usage"]
    assert tap.output_bytes == expect["output_bytes"]
    assert tap.complete == expect["complete"]
    assert tap.broken == (not tap.complete and tap.error is None)
    last = re.search(rb"(?<=[\r\n])data: ?\[DONE\]", body)
    assert tap.done == bool(last)
    terminal = body[last.start() :] if last else b""
    assert given == body.removesuffix(terminal)
    assert tap.kept == len(terminal)
    assert tap.release() == terminal
    assert tap.kept == 0


def run(golden: Golden, pieces: list[bytes], body: bytes, drop: bool = False) -> None:
    tap = golden.tap(drop)
    given = b""
    for piece in pieces:
        given += tap.feed(piece)
        assert tap.at_boundary == is_boundary(given)
    tap.end()
    check(golden, tap, given, body)
    assert {str(index): reason for index, reason in tap._tap.finish.items()} == golden.expect["finish"]


@pytest.mark.parametrize("golden", STREAMS, ids=name_of)
@pytest.mark.parametrize("end", ENDS)
def test_b32_b33_e22_a_stream_at_every_cut(golden: Golden, end: str) -> None:
    body = golden.body.replace(b"\n", ENDS[end])
    drop = golden.expect["usage_event"]
    expected = without_usage_event(body, ENDS[end]) if drop else body
    assert (expected != body) == drop
    run(golden, [body], expected, drop)
    step = 1 if end == "lf" else 3  # with the other ends every third cut, and each one around a line end
    for cut in range(1, len(body)):
        if cut % step == 0 or body[cut - 1] < 0x20 or body[cut] < 0x20:
            run(golden, [body[:cut], body[cut:]], expected, drop)


@pytest.mark.parametrize("golden", ANSWERS, ids=name_of)
@pytest.mark.parametrize("drop", [True, False])
def test_b32_b33_a_stream_byte_by_byte_between_comments_and_behind_a_mark(golden: Golden, drop: bool) -> None:
    commented = b": first\n" + golden.body.replace(b"\n\n", b"\n\n: \xe6\xb5\xaa\n: [DONE]\n\n\nretry: 9\n\n")
    identified = re.sub(rb"^data: ", b"id: 7\ndata:", golden.body, flags=re.MULTILINE)
    for body in (commented, b"\xef\xbb\xbf" + golden.body, identified.replace(b"id: 7\ndata:[DONE]", b"data:[DONE]")):
        expected = body
        if drop and golden.expect["usage_event"]:
            expected = re.sub(rb'(id: 7\n)?data: ?\{[^\n]*"choices":\[\],[^\n]*\n\n', b"", body)
            assert expected != body
        run(golden, [body[n : n + 1] for n in range(len(body))], expected, drop)


def test_b32_ten_thousand_random_multi_cuts() -> None:
    chance = random.Random(20260101)
    for _ in range(10_000):
        golden = chance.choice(STREAMS)
        end = chance.choice([b"\n", b"\n", b"\r\n", b"\r"])
        body = golden.body.replace(b"\n", end)
        cuts = sorted(chance.randrange(len(body)) for _ in range(chance.choice([2, 3, 5])))
        drop = golden.expect["usage_event"]
        tap = golden.tap(drop)
        given = b"".join([tap.feed(body[a:b]) for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)])
        tap.end()
        check(golden, tap, given, without_usage_event(body, end) if drop else body)


@settings(max_examples=200)
@given(st.sampled_from(ANSWERS), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 10**6), max_size=3))
def test_b18_a_cut_stream_gives_a_prefix_and_its_terminal_bytes_never(
    golden: Golden, end: bytes, at: list[int]
) -> None:
    body = golden.body.replace(b"\n", end)
    cuts = sorted(n % len(body) for n in at)
    tap = golden.tap()
    given = b"".join([tap.feed(body[a:b]) for a, b in zip([0, *cuts], cuts, strict=False)])
    boundary = tap.at_boundary
    partial = tap.partial()
    assert tap.partial() == b""
    assert tap.at_boundary == (boundary and not partial)
    assert not re.search(rb"^data: ?\[DONE\]", partial, re.MULTILINE)
    seen = body[: cuts[-1] if cuts else 0]
    assert seen.startswith(given + partial)
    assert given + partial + tap.release() == seen


@pytest.mark.parametrize("golden", DOCUMENTS, ids=name_of)
def test_b32_a_document_at_every_cut(golden: Golden) -> None:
    body = golden.body
    text = body.lstrip()
    for cut in range(len(body)):
        tap = golden.tap()
        given = tap.feed(body[:cut]) + tap.feed(body[cut:])
        tap.end()
        if given:
            assert given == body[:cut]
            assert not given.strip()
        if golden.expect["refusal"]:
            check(golden, tap, given, body)
            continue
        assert tap.refusal is None
        assert (tap.usage and tap.usage._asdict()) == golden.expect["usage"]
        assert tap.output_bytes == golden.expect["output_bytes"]
        assert tap.complete == tap.began == golden.expect["complete"]
        assert not tap.broken
        assert tap.kept == len(body) - len(given)
        assert given + tap.release() == body
        assert text in body


@pytest.mark.parametrize("golden", [g for g in DOCUMENTS if g.expect["complete"]], ids=name_of)
def test_b19_a_document_that_broke_off_counts_what_came(golden: Golden) -> None:
    body = golden.body
    for cut in range(len(body.rstrip())):
        tap = golden.tap()
        given = tap.feed(body[:cut])
        assert not tap.complete
        assert tap.began == (b'"choices":[{' in re.sub(rb"\s", b"", body[:cut]) or tap.usage is not None)
        assert tap.usage is None or tap.usage._asdict() == golden.expect["usage"]
        assert given + tap.partial() == body[:cut]
        assert tap.release() == b""
    whole = golden.tap()
    given = whole.feed(body)
    assert given + whole.partial() == body.rstrip()[:-1]
    assert whole.usage is not None
    assert whole.usage._asdict() == golden.expect["usage"]
    assert golden.expect["output_bytes"] <= whole.output_bytes <= golden.expect["output_bytes"] + 99  # escapes count


# --- what a body is, by its first bytes ------------------------------------------------------------------------------

UNTOLD = ["", "text/plain; charset=utf-8", "application/octet-stream", "application/json", "text/html"]


@pytest.mark.parametrize("golden", STREAMS, ids=name_of)
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b": hello\n\n", b"event: x\n", b"id:1\n", b"retry:9\r\n"])
def test_b42_a_stream_is_one_whatever_its_media_type_and_its_cuts(golden: Golden, before: bytes) -> None:
    body = before + golden.body
    dialect = IN_CHOICE if golden.expect["usage_in_choice"] else PLAIN
    for number, cut in enumerate([*range(20), len(body) - 9]):
        tap = make_tap(UNTOLD[number % len(UNTOLD)], dialect, drop_usage_event=False)
        pieces = [body[:cut], body[cut : cut + 1], body[cut + 1 :]]
        given = b""
        for piece in pieces:
            assert tap.kept <= len(body)
            given += tap.feed(piece)
        assert tap.streams
        tap.end()
        if golden.expect["refusal"] and given:  # a comment had gone out
            assert tap.error is not None
            continue
        check(golden, tap, given, body)


@pytest.mark.parametrize("golden", DOCUMENTS, ids=name_of)
def test_b42_a_document_is_one_whatever_its_media_type_and_its_cuts(golden: Golden) -> None:
    if golden.name.startswith("garbage"):
        return
    dialect = IN_CHOICE if golden.expect["usage_in_choice"] else PLAIN
    for before in (b"", b" ") if golden.body.startswith(b"\n") else (b"", b" ", b"\xef\xbb\xbf"):
        for number, cut in enumerate(range(9)):
            body = before + golden.body
            tap = make_tap(["text/event-stream", "", "text/plain"][number % 3], dialect, drop_usage_event=True)
            given = tap.feed(body[:cut]) + tap.feed(body[cut:])
            assert not tap.streams
            tap.end()
            if tap.refusal is not None:
                assert golden.expect["refusal"]
                continue
            assert (tap.error is not None) == golden.expect["refusal"]
            assert (tap.usage and tap.usage._asdict()) == golden.expect["usage"]
            assert tap.complete == golden.expect["complete"]
            assert given + tap.release() == body


def test_b42_white_space_goes_out_before_it_is_known_what_comes() -> None:
    for content_type in ("", "text/event-stream"):
        for rest, streams in ((ERROR, True), (b'{"error":"late"}', False)):
            tap = make_tap(content_type, PLAIN, drop_usage_event=False)
            assert tap.feed(b"") == b""
            assert tap.feed(b"\r\n") == b"\r\n"
            assert tap.feed(b" \n") == b" \n"
            tap.feed(rest)
            tap.end()
            assert tap.streams == streams
            assert tap.refusal is not None  # what is out is only white space
            assert tap.error is not None
        tap = make_tap(content_type, PLAIN, drop_usage_event=False)
        tap.feed(b"\n" + ERROR)
        assert tap.refusal is not None
    for content_type in ("", "text/event-stream"):
        within = make_tap(content_type, PLAIN, drop_usage_event=False)
        assert within.feed(b" ") == b" "
        within.feed(ERROR)
        within.end()
        assert within.streams == bool(content_type)
        assert within.refusal is None  # within a line no field begins
        assert within.error is None


@pytest.mark.parametrize(
    "head", [b"", b"d", b"dat", b"data", b"id", b"\xef\xbb", b"\xef\xbb\xbf", b"\n\xef\xbb\xbfre", b" "]
)
def test_b18_what_has_not_decided_is_kept_and_given_back(head: bytes) -> None:
    for content_type, streams in (("", False), ("text/event-stream", True)):
        for finish in ("partial", "release", "end"):
            tap = make_tap(content_type, PLAIN, drop_usage_event=False)
            given = tap.feed(head)
            assert given + b"x" * tap.kept == given + b"x" * len(head.strip() and head)
            assert (tap.streams, tap.began, tap.broken, tap.complete) == (streams, False, False, False)
            if finish == "end":
                tap.end()
                assert tap.broken == streams
                finish = "release"
            assert given + getattr(tap, finish)() == head


PIECES = [
    b"\n",
    b"\r",
    b" ",
    b"\xef\xbb\xbf",
    b"d",
    b"data:",
    b"id",
    b": x",
    b"{",
    b'{"choices":[{',
    b"<",
    chunk(),
    DONE,
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=6), st.lists(st.integers(0, 200), max_size=5), st.sampled_from(UNTOLD)
)
@example(parts=[b" ", chunk()], at=[1], content_type="")
def test_b32_whatever_comes_no_byte_is_lost_and_no_cut_changes_what_it_is(
    parts: list[bytes], at: list[int], content_type: str
) -> None:
    body = b"".join(parts)
    cuts = sorted(cut for cut in at if cut < len(body))
    for streams in (content_type, "text/event-stream"):
        whole, tap = (make_tap(streams, PLAIN, drop_usage_event=False) for _ in range(2))
        whole.feed(body)
        given = b"".join(tap.feed(body[a:b]) for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True))
        for one in (whole, tap):
            one.end()
        for seen in ("streams", "began", "broken", "complete", "output_bytes", "usage"):
            assert getattr(tap, seen) == getattr(whole, seen), seen
        assert given + tap.release() == body


@pytest.mark.parametrize("body", [b"<html>data: x", b"daten\n", b"[1]", b"id\n", b"eventual", b"\xef\xbbdata: x"])
def test_b14_what_only_begins_like_a_stream_is_what_its_media_type_says(body: bytes) -> None:
    tap = make_tap("text/html", PLAIN, drop_usage_event=False)
    given = b"".join(tap.feed(body[n : n + 1]) for n in range(len(body)))
    tap.end()
    assert (tap.streams, tap.began, tap.broken) == (False, False, False)
    assert given + tap.release() == body
    assert make_tap("Text/Event-Stream;charset=UTF-8", PLAIN, drop_usage_event=True).streams


# --- streams, case by case ------------------------------------------------------------------------------------------


def test_everything_goes_out_at_once_after_the_first_event() -> None:
    tap = stream()
    assert tap.feed(b": keep-alive\n\n: kee") == b": keep-alive\n\n: kee"
    assert not tap.at_boundary
    assert tap.feed(b"p-alive\n\n") == b"p-alive\n\n"
    first = chunk()
    assert tap.feed(first[:-1]) == b""
    assert tap.at_boundary
    assert not tap.began
    assert tap.feed(first[-1:]) == first
    assert tap.feed(b"d") == b""
    assert tap.at_boundary
    assert tap.feed(b'ata: {"cho') == b'data: {"cho'
    assert not tap.at_boundary
    assert tap.feed(b"ices\xe6") == b"ices\xe6"
    assert tap.feed(b"\n") == b"\n"
    assert not tap.at_boundary
    assert tap.feed(b"\n") == b"\n"
    assert tap.at_boundary


def test_the_terminal_line_waits_however_it_is_spelt() -> None:
    for line in (b"data: [DONE]\n\n", b"data:[DONE]\r\n\r\n", b"data:  [DONE]\r\r", b"data: [DONE]", b"data: [DONE]\n"):
        for drop in (False, True):
            tap = stream(drop)
            tap.feed(chunk())
            for n in range(len(line)):
                assert tap.feed(line[n : n + 1]) == b""
            assert tap.done
            assert tap.complete
            assert tap.partial() == b""
            assert tap.at_boundary
            assert tap.release() == line
            assert tap.at_boundary == (len(line.split(b"]")[1]) > 1)
            assert tap.release() == b""
            assert tap.feed(b"more") == b"more"
            assert not tap.at_boundary


def test_what_follows_the_end_is_bounded() -> None:
    tap = stream()
    tap.feed(chunk() + DONE)
    for _ in range(40):
        assert tap.feed(b"x" * 65_536) == b""
    assert tap.kept == EVENT_BYTES_MAX
    assert tap.release().startswith(DONE + b"xx")


def test_an_event_that_no_blank_line_ends_before_the_end_counts() -> None:
    for drop, relayed in ((False, USAGE_EVENT[:-1]), (True, b"")):
        tap = stream(drop)
        tap.feed(chunk())
        assert tap.feed(USAGE_EVENT[:-1] + DONE) == relayed
        assert tap.usage == Usage(9, 3)
        assert not tap.at_boundary
        assert tap.release() == DONE


@pytest.mark.parametrize("drop", [False, True])
def test_b20_the_last_event_counts_without_its_blank_line(drop: bool) -> None:
    for missing in (1, 2):
        tap = stream(drop)
        last = chunk(usage=USAGE)[:-missing]
        given = tap.feed(chunk()) + tap.feed(last)
        tap.end()
        tap.end()
        assert tap.usage == Usage(9, 3)
        assert not tap.complete
        assert not (tap.at_boundary and given.endswith(last))
        assert given + tap.release() == chunk() + last
        assert not tap.at_boundary


def test_e22_an_unended_usage_event_is_removed_too() -> None:
    tap = stream(drop=True)
    assert tap.feed(chunk() + USAGE_EVENT[:-1]) == chunk()
    tap.end()
    assert tap.usage == Usage(9, 3)
    assert tap.release() == b""
    assert tap.at_boundary


def test_e22_only_usage_events_are_removed_and_all_of_them() -> None:
    others = [
        chunk(usage=None),
        chunk(usage=USAGE),
        b'data: {"choices":[],"usage":null}\n\n',
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
        b'data: {"usage":{"prompt_tokens":9}}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":9},"error":"late"}\n\n',
        b"data: [1]\n\n",
        b"data: {oops\n\n",
        b"data:\n\n",
    ]
    tap = stream(drop=True)
    for other in others:
        assert tap.feed(other + b": ping\n" + USAGE_EVENT) == other + b": ping\n"
        assert tap.feed(b"event: x\n" + USAGE_EVENT.replace(b"\n", b"\r\n")[:-1]) == b""
        assert tap.feed(b"\n") == b""
        assert tap.at_boundary
    assert tap.feed(USAGE_EVENT.replace(b"\n", b"\r") + b"\r") == b"\r"
    assert tap.feed(b"\n" + others[0]) == b"\n" + others[0]


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [], "usage": None},
        {"choices": [], "usage": {}},
        {"choices": [], "usage": {"total_tokens": 0, "total_characters": 0}},
        {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        {"choices": [], "usage": {"prompt_tokens": "9", "completion_tokens": 3}},
        {"choices": [], "prompt_filter_results": []},
        {"choices": None, "usage": USAGE},
        {"usage": USAGE},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE},
        {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": "x"}}], "usage": USAGE},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]},
    ],
)
@pytest.mark.parametrize("dialect", [PLAIN, IN_CHOICE], ids=["plain", "in choice"])
def test_e22_an_event_that_says_anything_but_real_usage_is_never_removed(
    event: dict[str, Any], dialect: Dialect
) -> None:
    body = chunk() + b"data: " + orjson.dumps(event) + b"\n\n" + DONE
    for cut in range(len(body)):
        tap = stream(drop=True, dialect=dialect)
        given = tap.feed(body[:cut]) + tap.feed(body[cut:])
        tap.end()
        assert given + tap.release() == body


OWN_PLACE = Dialect("own", ask_usage=True, usage=UsageShape(at=(("meta", "tokens"), ("usage", "inner"))))


def test_e22_usage_in_a_place_of_its_own_is_removed_where_only_we_asked_for_it() -> None:
    event = b"data: " + orjson.dumps({"choices": [], "meta": {"tokens": USAGE}}) + b"\n\n"
    for dialect, expected in ((OWN_PLACE, chunk() + DONE), (PLAIN, chunk() + event + DONE)):
        tap = stream(drop=True, dialect=dialect)
        given = tap.feed(chunk() + event + DONE)
        tap.end()
        assert given + tap.release() == expected
        assert tap.usage == (Usage(9, 3) if dialect is OWN_PLACE else None)


def test_usage_behind_the_end_counts_in_a_place_of_its_own_too() -> None:
    tap = stream(dialect=OWN_PLACE)
    tap.feed(chunk() + DONE + b"data:" + orjson.dumps({"meta": {"tokens": USAGE}}) + b"\n\n")
    assert tap.usage is None
    tap.end()
    assert tap.usage == Usage(9, 3)


def test_a_stream_without_any_finish_reason_is_complete_with_its_end() -> None:
    for end, complete in ((DONE, True), (b"", False)):
        tap = stream()
        tap.feed(b'data:{"code":0,"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' + end)
        tap.end()
        assert (tap.complete, tap.broken) == (complete, not complete)


def test_comments_and_late_line_feeds_within_a_kept_event_stay_in_place() -> None:
    tap = stream(drop=True)
    event = b'data: {"choices":\r\n: within\r\ndata: [{"delta":{"content":"ab"}}]}\r\n\r\n'
    assert b"".join([tap.feed(event[n : n + 1]) for n in range(len(event))]) == event
    assert tap.output_bytes == 2


@pytest.mark.parametrize(
    "event",
    [
        ERROR,
        b'event: error\ndata: {"message":"busy"}\n\n',
        b'event:error\r\ndata: {"message":"busy"}\r\n\r\n',
        b"event: error\ndata: busy\n\n",
        b'data: {"error":"busy","choices":[{"index":0}]}\n\n',
        b'data: {"code":10007,"message":"busy","sid":"s"}\n\n',
        b'data: {"code":"Arrearage","message":"busy"}\n\n',
        b'data: {"base_resp":{"status_code":1002},"choices":null}\n\n',
        b'data: {"error_code":18,"error_msg":"busy"}\n\n',
        ERROR[:-1],
        ERROR[:-1] + DONE,
        b"retry: 9\r" + ERROR,
    ],
)
def test_b16_a_first_event_that_is_an_error_is_refused_and_nothing_goes_out(event: bytes) -> None:
    more = b"\n" + chunk()
    for pieces in ([event], [b": in the same piece\n\n" + event + more], [event[:9], event[9:], more]):
        tap = stream()
        assert b"".join(map(tap.feed, pieces)) == b""
        tap.end()
        tap.end()
        assert tap.refusal is not None
        assert tap.refusal is tap.error
        assert "busy" in str(tap.refusal) or event.startswith((b'data: {"b', b'data: {"e'))
        assert tap.kept == 0
        assert (tap.partial(), tap.release(), tap.feed(b"x")) == (b"", b"", b"")
        assert not tap.began
        assert not tap.done


@pytest.mark.parametrize(
    "event",
    [
        chunk(code=0, message="Success"),
        chunk(code=5, message="Warning"),
        chunk(base_resp={"status_code": 0}),
        b'data: {"code":0,"message":"Success"}\n\n',
        b'data: {"code":7}\n\n',
        b'data: {"base_resp":{"status_code":0}}\n\n',
        b'data: {"error":null}\n\n',
        b"data: [DONE\n\n",
    ],
)
def test_what_only_resembles_an_error_is_relayed(event: bytes) -> None:
    tap = stream()
    assert tap.feed(event) == event
    assert tap.refusal is tap.error is None


def test_b16_after_keep_alive_an_error_is_a_refusal_and_after_content_it_is_relayed() -> None:
    tap = stream()
    given = tap.feed(b": keep-alive\n\n") + tap.feed(ERROR) + tap.feed(DONE)
    assert given == b": keep-alive\n\n"
    assert tap.refusal == tap.error == {"error": {"message": "busy", "code": 429}}
    assert tap.at_boundary  # an event of ours can follow
    assert not tap.began
    late = stream()
    late.feed(chunk())
    assert late.feed(ERROR) == ERROR
    assert late.refusal is None
    late.feed(b'data: {"error":"cut","usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n')
    assert late.usage == Usage(9, 3)


QUIET = [
    b"data:\n\n",
    b"data: \r\n\r\n",
    b"data: {}\n\n",
    b"data: ping\n\n",
    b"event: ping\rid: 1\rdata: {}\r\r",
    b"id: 7\n\n",
    b'data: {"choices":[]}\n\n',
    b'data: {"choices":null,"usage":null}\n\n',
    b'data: {"choices":[],"prompt_filter_results":[{"x":"y"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n',
    b": keep-alive\n\n",
]


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("quiet", [*([one] for one in QUIET), QUIET, QUIET * 50], ids=lambda quiet: str(quiet)[:40])
def test_b16_behind_events_that_say_nothing_an_error_is_still_the_first_thing(quiet: list[bytes], drop: bool) -> None:
    tap = stream(drop)
    assert [tap.feed(one) for one in quiet] == quiet  # at once, like keep-alive
    assert (tap.at_boundary, tap.began, tap.unread) == (True, False, 0)
    assert tap.feed(ERROR + chunk() + DONE) == b""
    assert tap.refusal == tap.error == {"error": {"message": "busy", "code": 429}}
    assert (tap.at_boundary, tap.began, tap.kept, tap.release()) == (True, False, 0, b"")
    body = b"".join(quiet)
    for cut in range(1, len(body), 1 + len(body) // 200):
        tap = stream(drop)
        given = tap.feed(body[:cut]) + tap.feed(body[cut:])
        assert given == body
        assert tap.feed(ERROR[:-1]) == b""
        tap.end()
        assert tap.refusal is not None
        said = stream(drop)
        given = said.feed(body[:cut]) + said.feed(body[cut:]) + said.feed(chunk() + ERROR)
        assert (given, said.refusal) == (body + chunk() + ERROR, None)


@pytest.mark.parametrize(
    "said",
    [
        chunk(),
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
        USAGE_EVENT,
        b'data: {"choices":[5]}\n\n',
        b'data: {"choices":[{"index":0\n\n',
        b'{"choices":[{"index":0}]}\n\n',
    ],
)
def test_b16_behind_anything_that_is_or_looks_like_an_answer_an_error_is_relayed(said: bytes) -> None:
    for before in (b"", b"".join(QUIET)):
        tap = stream()
        assert tap.feed(before + said) == before + said
        assert tap.feed(ERROR) == ERROR
        assert (tap.refusal, tap.error) == (None, {"error": {"message": "busy", "code": 429}})


UNREADABLE = [
    b'data: {"choices":[{"delta":{"content":"x"}}]}}\n\n',
    b'data: [{"choices":[{"delta":{"content":"x"}}]}]\n\n',
    b'data: {"choices":{"0":{"delta":{"content":"x"}}}}\n\n',
    b'data: {"data":{"choices":[{"delta":{"content":"x"}}]}}\n\n',
    b'data: {"choices":\ndata: [5]}\n\n',
    b' data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
]


@pytest.mark.parametrize("event", UNREADABLE)
@pytest.mark.parametrize("drop", [False, True])
def test_b14_an_event_that_looks_like_a_completion_and_cannot_be_read_is_counted(event: bytes, drop: bool) -> None:
    for before, began in ((b"", False), (b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n', True)):
        tap = stream(drop)
        assert tap.feed(before) + tap.feed(event) + tap.feed(event) == before + 2 * event
        assert 2 * len(event) - 32 < tap.unread <= 2 * len(event)
        assert (tap.began, tap.output_bytes, tap.usage) == (began, 0, None)
        tap.feed(chunk("said") + DONE)
        tap.end()
        assert (tap.output_bytes, tap.complete) == (4, True)


def test_b14_of_a_first_event_that_was_cut_its_bytes_count_only_if_they_look_like_a_completion() -> None:
    whole = b": hello\n\n" + chunk("tide")
    for cut in range(len(whole)):
        tap = stream()
        tap.feed(whole[:cut])
        told = whole[:cut].find(b'"choices"') > 0
        assert tap.unread == (cut - len(b": hello\n\n") if told and cut < len(whole) else 0)
    tap = stream()
    tap.feed(whole)
    assert tap.unread == 0
    tap.feed(chunk("tide")[:-5])
    assert (tap.unread, tap.output_bytes) == (0, 4)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("size", [1 << 16, 1000, EVENT_BYTES_MAX * 3])
def test_b34_a_line_of_ten_megabytes_passes_unparsed_with_bounded_memory(drop: bool, size: int) -> None:
    line = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * (
        10 * EVENT_BYTES_MAX if size > 1000 else 2_000_000
    )
    tap = stream(drop)
    assert tap.feed(chunk()) == chunk()
    given = 0
    for at in range(0, len(line), size):
        given += len(tap.feed(line[at : at + size]))
        assert tap.kept <= EVENT_BYTES_MAX
    assert given == len(line)
    assert not tap.at_boundary
    assert tap.feed(b'"}}]}\n') == b'"}}]}\n'
    assert tap.feed(b": within\ndata: more\n") == b": within\ndata: more\n"
    assert not tap.at_boundary
    assert tap.feed(b"\n") == b"\n"
    assert tap.at_boundary
    assert len(line) < tap.output_bytes < len(line) + 30
    assert tap.feed(USAGE_EVENT) == (b"" if drop else USAGE_EVENT)
    assert tap.usage == Usage(9, 3)
    assert tap.feed(DONE) == b""


@pytest.mark.parametrize("drop", [False, True])
def test_b34_an_event_of_endless_lines_and_an_endless_comment_are_bounded_too(drop: bool) -> None:
    tap = stream(drop)
    lines = b"data: " + b"y" * 1000 + b"\n: so\n"
    given = 0
    for _ in range(1100):
        given += len(tap.feed(lines))
        assert tap.kept <= EVENT_BYTES_MAX
    assert given == 1100 * len(lines)
    at_once = stream(drop)
    assert at_once.feed(lines * 1100 + b"\n") == lines * 1100 + b"\n"
    assert at_once.output_bytes == tap.output_bytes
    assert tap.began
    assert tap.feed(b"\r\n") == b"\r\n"
    for _ in range(40):
        assert tap.feed(b":" * 65_536) == b":" * 65_536
        assert tap.kept == 0
    assert tap.feed(b"\n" + DONE) == b"\n"
    assert tap.done


def test_b34_an_endless_first_line_is_no_refusal() -> None:
    tap = stream()
    assert tap.feed(ERROR[:9]) == b""
    assert len(tap.feed(b" " * EVENT_BYTES_MAX)) == EVENT_BYTES_MAX + 9
    tap.end()
    assert tap.refusal is None
    assert tap.release() == b""


def test_b30_only_top_level_fields_count() -> None:
    tap = stream(drop=True)
    hostile = '","usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n'
    nested = chunk(hostile, note={"usage": USAGE, "choices": [], "error": {"a": 1}})
    assert tap.feed(nested) == nested
    assert (tap.usage, tap.done, tap.error) == (None, False, None)
    assert tap.output_bytes == len(hostile)


def test_what_the_model_says_is_counted_in_bytes() -> None:
    tap = stream()
    delta = {
        "role": "assistant",
        "content": [{"type": "text", "text": "浪"}, {"type": "image"}, 5],
        "reasoning_content": "ab",
        "reasoning": "c",
        "refusal": "d",
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"function": None}, 7],
        "function_call": {"name": "g", "arguments": None},
        "audio": {"data": "zzz"},
        "names": ["z"],
    }
    tap.feed(b"data: " + orjson.dumps({"choices": [{"delta": delta}, 3, {"index": -1, "delta": None}]}) + b"\n\n")
    assert tap.output_bytes == 3 + 2 + 1 + 1 + 3 + 1
    assert tap.choices == {0}
    tap.feed(chunk("é"))
    assert tap.output_bytes == 13


def test_a_whole_completion_in_a_stream_repeats_its_deltas_and_counts_once() -> None:
    tap = stream()
    tap.feed(chunk("tide"))
    tap.feed(b"data: " + orjson.dumps({"choices": [{"message": {"content": "ti"}}]}) + b"\n\n")
    assert tap.output_bytes == 4
    last = {
        "object": "chat.completion",
        "usage": USAGE,
        "choices": [{"message": {"content": "tide"}, "finish_reason": "stop"}],
    }
    tap.feed(b"data: " + orjson.dumps(last) + b"\n\n")
    tap.end()
    assert (tap.output_bytes, tap.usage, tap.complete) == (4, Usage(9, 3), True)


def test_a_lone_surrogate_is_read_all_the_same() -> None:
    tap = stream()
    tap.feed(
        b'data: {"choices":[{"delta":{"content":"\\ud83e"}}],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'
    )
    assert (tap.output_bytes, tap.usage) == (3, Usage(9, 3))


def test_a7_a_deep_event_is_relayed_and_ignored() -> None:
    tap = stream()
    deep = b"data: " + b"[" * 100_000 + b"\n\n"
    assert tap.feed(deep) == deep
    assert not tap.began


@pytest.mark.parametrize(
    "value", [b"-5", b'"9"', b"9.0", b"true", b"1e30", b"NaN", b"null", b"99999999999999999999999"]
)
def test_b28_usage_that_is_none_is_relayed_and_counts_for_nothing(value: bytes) -> None:
    tap = stream()
    event = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":%s,"completion_tokens":1}}\n\n' % value
    assert tap.feed(chunk() + event) == chunk() + event
    assert tap.usage is None
    assert tap.began


def test_b25_b26_usage_is_never_summed() -> None:
    tap = stream()
    for completion in (1, 2, 5):
        tap.feed(chunk(usage={"prompt_tokens": 9, "completion_tokens": completion}))
    assert tap.usage == Usage(9, 5)
    tap.feed(chunk(usage={"prompt_tokens": 9, "completion_tokens": 4}))
    assert tap.usage == Usage(9, 5, flagged=True)


def test_usage_in_a_choice_counts_only_where_the_dialect_says_so() -> None:
    event = b"data: " + orjson.dumps({"choices": [{"delta": {}, "usage": USAGE}]}) + b"\n\n"
    for dialect, usage in ((PLAIN, None), (IN_CHOICE, Usage(9, 3))):
        tap = stream(dialect=dialect)
        tap.feed(event)
        assert tap.usage == usage


def test_an_empty_body_is_no_answer() -> None:
    for tap in (stream(), document()):
        assert tap.feed(b"") == b""
        tap.end()
        assert (tap.complete, tap.began, tap.usage, tap.release()) == (False, False, None, b"")
    mark = stream()
    mark.feed(b"\xef\xbb\xbf")
    mark.end()
    assert mark.release() == b"\xef\xbb\xbf"


def test_b33_a_byte_order_mark_is_one_only_at_the_start() -> None:
    tap = stream()
    assert tap.feed(b"\xef\xbb\xbf" + chunk()) == b"\xef\xbb\xbf" + chunk()
    assert tap.began
    assert tap.feed(b"\xef\xbb\xbf" + DONE) == b"\xef\xbb\xbf" + DONE
    assert not tap.done


def test_a_stream_that_is_released_early_passes_all() -> None:
    tap = stream()
    assert tap.feed(b"data: {") == b""
    assert tap.release() == b"data: {"
    assert tap.feed(b"}\n\n") == b"}\n\n"
    tap.end()
    assert not tap.complete


# --- documents, case by case ----------------------------------------------------------------------------------------


def long_document(**more: Any) -> bytes:
    text = '"usage":{"prompt_tokens":1,"completion_tokens":1}}]}\\" 浪\n' * 40_000
    message = {"role": "assistant", "content": text, "usage": {"prompt_tokens": 2}}
    choice = {"index": 0, "usage": USAGE, "message": message, "finish_reason": "stop"}
    return orjson.dumps({"meta": {"usage": USAGE}, "choices": [choice], **more})


@pytest.mark.parametrize("size", [997, 65_536, 10**8])
@pytest.mark.parametrize("tail", [b"", b"\n", b" \r\n\t" * 100])
def test_b30_a_long_document_is_streamed_and_its_last_byte_waits(size: int, tail: bytes) -> None:
    body = long_document(usage={**USAGE, "prompt_tokens": 77}) + tail
    assert len(body) > 2 * ANSWER_BYTES_MAX
    tap = document()
    given = []
    for at in range(0, len(body), size):
        given.append(tap.feed(body[at : at + size]))
        assert tap.kept <= ANSWER_BYTES_MAX
    assert tap.streaming
    assert tap.began
    assert not tap.complete
    assert b"".join(given) == body.rstrip()[:-1]
    tap.end()
    tap.end()
    assert tap.complete
    assert not tap.broken
    assert not tap.at_boundary
    assert tap.usage == Usage(77, 3)
    assert ANSWER_BYTES_MAX < tap.output_bytes < len(body)
    assert b"".join(given) + tap.release() == body
    assert tap.feed(b"x") == b"x"


def test_a_long_document_with_usage_in_its_choice() -> None:
    for dialect, usage in ((PLAIN, None), (IN_CHOICE, Usage(9, 3))):
        tap = document(dialect)
        tap.feed(long_document())
        tap.end()
        assert tap.usage == usage


@pytest.mark.parametrize(
    "more",
    [
        {"meta": {"tokens": USAGE}},
        {"meta": {"x": [{"tokens": 5}], "tokens": USAGE, "y": {"tokens": 7}}, "usage": {"prompt_tokens": 1}},
        {"usage": {"inner": USAGE, "prompt_tokens": 5, "completion_tokens": 1}},
        {"meta": [], "usage": USAGE},
    ],
)
def test_a_long_document_with_usage_in_a_place_of_its_own(more: dict[str, Any]) -> None:
    for size in (100, ANSWER_BYTES_MAX):
        body = orjson.dumps({"choices": [{"message": {"content": "x" * size}, "finish_reason": "stop"}], **more})
        for cut in (10, len(body) - 40, len(body) - 3):
            tap = document(OWN_PLACE)
            tap.feed(body[:cut])
            tap.feed(body[cut:])
            tap.end()
            assert tap.complete
            assert tap.usage == Usage(9, 3)
        broken = document(OWN_PLACE)
        broken.feed(body[:-1])
        broken.end()
        assert (broken.complete, broken.broken, broken.usage) == (False, True, Usage(9, 3))


def test_a_long_document_with_reasoning_under_a_name_of_its_own() -> None:
    message = {"content": "x" * ANSWER_BYTES_MAX, "thoughts": "hmm"}
    body = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE})
    for dialect, thought in ((Dialect("own", ask_usage=True, reasoning=frozenset({"thoughts"})), True), (PLAIN, False)):
        tap = document(dialect)
        tap.feed(body)
        tap.end()
        assert (tap.complete, tap.thought) == (True, thought)
        assert tap.usage == Usage(9, 3, reasoning=int(thought), flagged=thought)


def test_a_long_document_that_is_cut_or_broken_is_not_complete() -> None:
    for body in (
        long_document()[:-1],
        long_document() + b"}",
        b'"' + b"x" * ANSWER_BYTES_MAX + b'"',
        b"[]," + b" " * 2**21,
    ):
        tap = document()
        given = tap.feed(body)
        tap.end()
        assert not tap.complete
        assert given + tap.release() == body


def test_endless_white_space_after_a_document_is_bounded() -> None:
    tap = document()
    body = long_document()
    given = len(tap.feed(body))
    for _ in range(40):
        given += len(tap.feed(b" " * 65_536))
        assert tap.kept <= ANSWER_BYTES_MAX
    assert given + len(tap.release()) == len(body) + 40 * 65_536


def test_b43_blank_lines_go_out_at_once_and_an_error_after_them_is_a_refusal() -> None:
    tap = document()
    assert tap.feed(b"\n\n") == b"\n\n"
    assert tap.feed(b"\n") == b"\n"
    assert tap.feed(b'{"error":"late"}') == b""
    tap.end()
    assert tap.refusal == tap.error == {"error": "late"}
    assert not tap.complete
    assert tap.release() == b""


@pytest.mark.parametrize(
    "body", [b"[1]", b'"x"', b"null", b"oops", b"\xff\xfe", b'{"choices":[]}', b'{"choices":[3]}', b"{}"]
)
def test_b14_what_is_no_completion_is_relayed_and_did_not_begin(body: bytes) -> None:
    tap = document()
    tap.feed(body)
    tap.end()
    assert (tap.began, tap.complete, tap.broken, tap.refusal, tap.output_bytes) == (False, False, False, None, 0)
    assert tap.release() == body
    tap.end()


WHOLE = orjson.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "tide"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)


@pytest.mark.parametrize(
    "body",
    [
        WHOLE[:-1],
        WHOLE + b"}",
        WHOLE + b"x",
        WHOLE + WHOLE,
        WHOLE + b"\n" + WHOLE,
        b"\xef\xbb\xbf" + WHOLE + b"\0",
        WHOLE.replace(b"tide", b"ti\xff\xfe"),
        WHOLE.replace(b"}]", b"},]"),
        b"oops " + WHOLE,
    ],
)
def test_b19_b45_a_completion_that_does_not_parse_is_charged_and_broken(body: bytes) -> None:
    tap = document()
    assert tap.feed(body) == b""
    tap.end()
    assert (tap.began, tap.broken, tap.complete) == (True, True, False)
    assert (tap.usage, tap.output_bytes) == (Usage(9, 3), 4)
    assert tap.error is tap.refusal is None
    assert body.startswith(tap.partial())


@pytest.mark.parametrize(
    ("body", "unread"),
    [
        (b'{"id":"x","choices":null,"usage":null}', False),
        (b'{"id":"x","choices":[],"usage":{"prompt_tokens":0}}', False),
        (b"{}", False),
        (b"<html>choices</html>", False),
        (b'{"error":{"message":"bu', False),
        (WHOLE, False),
        (WHOLE + b"}", False),  # the scanner reads it
        (b'{"choices":[5]}', True),
        (b'{"choices":{"0":{"message":{"content":"x"}}}}', True),
        (b'{"data":%s}' % WHOLE, True),
        (b"[%s]" % WHOLE, True),
        (b'{"choices":[', True),
    ],
)
def test_b14_a_document_that_looks_like_a_completion_and_cannot_be_read_is_counted(body: bytes, unread: bool) -> None:
    for padding in (b"", b" " * ANSWER_BYTES_MAX):
        for size in (5, 10**8):
            if padding and (size == 5 or b'"choices":null' in body or b'"choices":[]' in body):
                continue  # of a document that is streamed nobody can tell that its choices are empty
            tap = document()
            given = b"".join([tap.feed(body[at : at + size]) for at in range(0, len(body), size)])
            given += tap.feed(padding)
            tap.end()
            assert tap.unread == (len(body + padding) if unread else 0)
            assert given + tap.release() == body + padding
            assert tap.unread == (len(body + padding) if unread else 0)


def test_b14_in_a_long_document_choices_are_seen_though_their_name_is_cut() -> None:
    head = b'{"p":"' + LONG + b'",'
    for cut in range(1, 12):
        tap = document()
        for piece in (head, b'"choices":{}}'[:cut], b'"choices":{}}'[cut:]):
            tap.feed(piece)
        assert tap.streaming
        assert tap.unread == len(head) + 13  # though it has not ended
        other = document()
        for piece in (head, b'"choice":{}}'[:cut], b'"choice":{}}'[cut:]):
            other.feed(piece)
        other.end()
        assert other.unread == 0


def test_b19_a_completion_cut_under_clean_framing_counts_what_came() -> None:
    for cut in range(len(WHOLE)):
        tap = document()
        tap.feed(WHOLE[:cut])
        tap.end()
        assert not tap.complete
        assert tap.broken == tap.began == (b"[{" in WHOLE[:cut])
        assert tap.release() == WHOLE[:cut]


@pytest.mark.parametrize(
    "body", [b'{"error":{"message":"bu', b'{"error":"busy"}}', b"<p>{}</p>", b'{"id":1', b"\x1f\x8b"]
)
def test_b14_what_does_not_parse_and_is_no_completion_is_not_broken(body: bytes) -> None:
    tap = document()
    tap.feed(body)
    tap.end()
    assert (tap.began, tap.broken, tap.complete, tap.usage) == (False, False, False, None)


LONG = b"y" * ANSWER_BYTES_MAX


@pytest.mark.parametrize("size", [ANSWER_BYTES_MAX // 3, 10**8])
@pytest.mark.parametrize("padding", [b"", LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "reasons",
    [[b'"stop"'], [b"null"], [b'""'], [b'"stop"', b'"len\\u0067th"'], [b'"stop"', b"null"], [b"null", b'"stop"']],
)
def test_a_document_is_complete_if_every_choice_has_a_finish_reason(
    reasons: list[bytes], padding: bytes, size: int
) -> None:
    choices = [
        b'{"index":%d,"finish_reason":%s,"message":{"content":"x","finish_reason":"no"},"logprobs":{"content":[]}}'
        % one
        for one in enumerate(reasons)
    ]
    body = b'{"choices":[%s],"usage":{"prompt_tokens":9,"completion_tokens":3},"p":"%s"}' % (
        b",".join(choices),
        padding,
    )
    tap = document()
    for at in range(0, len(body), size):
        tap.feed(body[at : at + size])
    tap.end()
    assert tap.streaming == bool(padding)
    assert (tap.began, tap.broken, tap.usage) == (True, False, Usage(9, 3))
    assert tap.complete == all(len(reason) > 4 and reason != b"null" for reason in reasons)


def test_a_document_without_any_choice_but_a_usage_began() -> None:
    for body in (b'{"usage":{"prompt_tokens":9}}', b'{"choices":[],"usage":{"prompt_tokens":9}}'):
        tap = document()
        tap.feed(body)
        tap.end()
        assert (tap.began, tap.complete, tap.broken) == (True, False, False)


@pytest.mark.parametrize("tail", [b"x", b" 1", b"}", b"{}", b'"', b"\0"])
def test_a_long_document_with_something_behind_it_is_broken(tail: bytes) -> None:
    body = WHOLE[:-1] + b',"p":"' + LONG + b'"}'
    for pieces in ([body + tail], [body, tail], [body + b"\n", b" ", tail]):
        tap = document()
        for piece in pieces:
            tap.feed(piece)
        tap.end()
        assert (tap.began, tap.broken, tap.complete, tap.usage) == (True, True, False, Usage(9, 3))


# --- thinking --------------------------------------------------------------------------------------------------------

THOUGHT = Usage(9, 3, reasoning=1, flagged=True)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_that_is_seen_and_not_counted_is_priced_as_thinking(key: str) -> None:
    delta = b"data: " + orjson.dumps({"choices": [{"delta": {key: "hm"}}]}) + b"\n\n"
    for events in ([delta, USAGE_EVENT], [USAGE_EVENT, delta]):
        tap = stream()
        for event in events:
            tap.feed(event)
        assert (tap.thought, tap.usage) == (True, THOUGHT)
    tap.feed(chunk(usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}))
    assert tap.usage == Usage(9, 3, reasoning=2)
    body = WHOLE.replace(b'"content":"tide"', b'"%s":"hm","content":"tide"' % key.encode())
    for whole in (body, body[:-1], body[:-1] + b',"p":"' + LONG + b'"}'):
        tap = document()
        tap.feed(whole)
        tap.end()
        assert (tap.thought, tap.usage) == (True, THOUGHT)


def test_what_is_no_reasoning_is_not_priced_as_thinking() -> None:
    tap = stream()
    tap.feed(b"data: " + orjson.dumps({"choices": [{"delta": {"reasoning_content": "", "content": "a"}}]}) + b"\n\n")
    tap.feed(USAGE_EVENT)
    assert (tap.thought, tap.usage) == (False, Usage(9, 3))
    calls = b'"reasoning":"","content":[{"type":"text","reasoning":"no"}],"tool_calls":[{"reasoning":"no"}]'
    body = WHOLE.replace(b'"content":"tide"', calls)
    for whole in (body, body[:-1]):
        tap = document()
        tap.feed(whole)
        tap.end()
        assert (tap.thought, tap.usage) == (False, Usage(9, 3))


# --- the scanner ----------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["usage", "choices", "finish_reason", "a", 'q"', "back\\", "{"])
VALUES = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(alphabet='a"\\{}[],:浪\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sets(st.integers(0, 200), max_size=4), st.booleans())
def test_b30_the_scanner_finds_what_a_parser_finds(found: dict[str, Any], at: set[int], spaced: bool) -> None:
    body = json.dumps(found, ensure_ascii=False, indent=1 if spaced else None).encode()
    cuts = sorted(cut for cut in at if cut < len(body))
    scanner = Scanner()
    for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True):
        scanner.feed(body[a:b])
    assert scanner.closed
    choices = found.get("choices")
    dicts = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    ends = [isinstance(choice.get("finish_reason"), str) and choice["finish_reason"] != "" for choice in dicts]
    assert scanner.finished == (bool(dicts) and all(ends))
    assert scanner.choices == (isinstance(choices, list) and any(isinstance(choice, dict) for choice in choices))
    expected = {"usage": found["usage"]} if "usage" in found else {}
    usages = [c["usage"] for c in choices if isinstance(c, dict) and "usage" in c] if isinstance(choices, list) else []
    if usages:
        expected["choices"] = [{"usage": usages[-1]}]
    assert scanner.place(json.loads) == expected


PLACES = [("usage",), ("choices",), ("a", "usage"), ("usage", "a"), ("a", "b", "a")]


@given(
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.sets(st.integers(0, 200), max_size=4),
    st.sets(st.sampled_from([place for place in PLACES if place[0] != "choices"]), min_size=1),
)
def test_b30_the_scanner_finds_what_a_parser_finds_in_other_places(
    found: dict[str, Any], at: set[int], places: set[tuple[str, ...]]
) -> None:
    body = json.dumps(found, ensure_ascii=False).encode()
    cuts = sorted(cut for cut in at if cut < len(body))
    scanner = Scanner(at=places)
    for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True):
        scanner.feed(body[a:b])
    assert scanner.closed
    placed = scanner.place(json.loads)
    for place in places:
        assert find(placed, place) == find(found, place)


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b'{"', b'"usage":', b"[{", b"}]", b"\\", b",", b"}"])))
def test_the_scanner_takes_anything(pieces: list[bytes]) -> None:
    scanner = Scanner()
    for piece in pieces:
        scanner.feed(piece)


def test_the_scanner_is_bounded() -> None:
    scanner = Scanner()
    scanner.feed(b'{"' + b"k" * 1000)
    assert len(scanner._text) == KEY_BYTES_MAX
    scanner.feed(b"k" * 1000 + b'":1,"usage":[' + b"1," * USAGE_BYTES_MAX)
    scanner.feed(b"1]}")
    assert scanner.closed
    assert scanner.kept == {}
    sudden = Scanner()
    sudden.feed(b'{"usage":[' + b"1," * USAGE_BYTES_MAX + b"1]}")
    assert (sudden.closed, sudden.kept) == (True, {})
    deep = Scanner()
    deep.feed(b'{"choices":[{}],"x":' + b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1) + b"}")
    assert not deep.closed
    assert deep.choices
    for wrong in (b"{]", b"}", b'[":"]:', b"[1:2]"):
        broken = Scanner()
        broken.feed(wrong)
        assert broken.kept == {}
