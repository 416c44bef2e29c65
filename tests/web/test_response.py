"""The one shape of an error, and its headers."""

import orjson
import pytest

from nexus_proxy import errors
from nexus_proxy.errors import NexusError, leaves
from nexus_proxy.web import response as answers
from nexus_proxy.web.response import error_response, new_request_id


@pytest.mark.parametrize("leaf", leaves(NexusError), ids=lambda leaf: leaf.__name__)
@pytest.mark.parametrize("wait_ns", [None, 0, 1, 1_500_000_000])
def test_every_error_has_the_one_shape_and_true_headers(leaf: type[NexusError], wait_ns: int | None) -> None:
    error = leaf("words", param="p", retry_after_ns=wait_ns)
    answer = error_response(error, "x-request-id: req_1\r\nx-ratelimit-limit-requests: 10\r\n")
    assert orjson.loads(answer.body) == {
        "error": {"message": "words", "type": error.type, "param": "p", "code": error.code}
    }
    head = answer.render_head().split(b"\r\n")
    assert head[-2:] == [b"", b""]
    lines = [line.decode().partition(": ") for line in head[1:-2]]
    headers = {name: value for name, _, value in lines}
    assert len(headers) == len(lines)
    assert answer.status == error.status
    assert headers["Content-Type"] == "application/json"
    assert (headers["x-request-id"], headers["x-ratelimit-limit-requests"]) == ("req_1", "10")
    assert headers.get("x-should-retry") == (None if error.retry else "false")
    assert headers.get("www-authenticate") == ("Bearer" if error.status == 401 else None)
    expected = {None: (None, None), 0: ("0", "0"), 1: ("1", "1"), 1_500_000_000: ("2", "1500")}[wait_ns]
    assert (headers.get("retry-after"), headers.get("retry-after-ms")) == expected
    assert answer.close is error.close
    assert head[0].startswith(b"HTTP/1.1 %d " % error.status)
    assert (b"Connection: close" in head) is error.close
    assert b"Content-Length: %d" % len(answer.body) in head


@pytest.mark.parametrize(("allow", "lines"), [("GET, POST", [b"allow: GET, POST"]), ("", [])])
def test_a_405_says_what_the_path_takes(allow: str, lines: list[bytes]) -> None:
    head = error_response(errors.MethodNotAllowed("words", allow=allow), "").render_head().split(b"\r\n")
    assert [line for line in head if line.startswith(b"allow")] == lines


def test_the_date_is_that_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for ms, date in ((0, "00:00:00"), (999, "00:00:00"), (1000, "00:00:01"), (62_500, "00:01:02")):
        monkeypatch.setattr(answers, "now_ms", lambda ms=ms: ms)
        head = answers.response_head(200, "a: b\r\n", "c: d\r\n")
        assert head.decode() == f"HTTP/1.1 200 OK\r\nc: d\r\nDate: Thu, 01 Jan 1970 {date} GMT\r\na: b\r\n\r\n"


RETRIED = {"balance_held", "request_timeout", "rate_limit_exceeded", "upstream_rate_limited", "internal_error"}
RETRIED |= {"upstream_unreachable", "overloaded", "shutting_down", "ledger_unavailable", "upstream_overloaded"}


def test_what_may_be_retried_is_what_is_documented() -> None:
    found = {leaf.code for leaf in leaves(NexusError) if leaf.retry}
    assert found == RETRIED
    assert {leaf.status for leaf in leaves(NexusError) if leaf.status == 402} == {402}
    assert not issubclass(errors.InsufficientBalance, errors.UpstreamError)


def test_request_ids_are_different_and_sort_by_time() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [each[:16] for each in ids] == sorted(each[:16] for each in ids)
    assert all(len(each) == 36 and each.startswith("req_") for each in ids)
