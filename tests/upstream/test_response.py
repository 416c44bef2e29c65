"""What is taken over from a provider's head."""

import datetime
from email.utils import format_datetime

import orjson
import pytest

from nexus_proxy.errors import UpstreamBroken
from nexus_proxy.upstream.response import content_type_of, error_event, is_encoded, retry_after_ns

OTHER = "application/octet-stream"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"application/json", "application/json"),
        (b" text/event-stream; charset=utf-8 ", "text/event-stream; charset=utf-8"),
        (b'text/plain;charset="utf-8"', 'text/plain;charset="utf-8"'),
        (b"application/json; \xff", "application/json"),
        (b"application/json\x7fx", "application/json"),
        (b"application", OTHER),
        (b"", OTHER),
        (b"\xfftext/plain", OTHER),
    ],
)
def test_b40_f11_a_content_type_is_taken_as_far_as_it_is_well_formed(value: bytes, found: str) -> None:
    assert content_type_of([(b"server", b"x"), (b"content-type", value), (b"content-type", b"a/b")]) == found


def test_no_content_type_is_bytes() -> None:
    assert content_type_of([(b"server", b"x")]) == OTHER


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"gzip", "gzip"),
        (b" GZip ", "gzip"),
        (b"gzip, br", "gzip, br"),
        (b"identity", None),
        (b"", None),
        (b"g\x01zip", None),
        (b"x" * 41, None),
    ],
)
def test_b31_a_coding_that_came_unasked_is_seen(value: bytes, found: str | None) -> None:
    assert is_encoded([(b"server", b"x"), (b"content-encoding", value)]) == found
    assert is_encoded([(b"server", b"x")]) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"7", 7_000_000_000),
        (b" 0.25 ", 250_000_000),
        (b"0", 0),
        (b"86400", 86_400_000_000_000),
        *((value, None) for value in (b"86401", b"-1", b"nan", b"inf", b"soon", b"", b"1e999", b"\xff", b"Sun, 99")),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", None),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", None),
    ],
)
def test_b12_retry_after_is_believed_within_reason(value: bytes, found: int | None) -> None:
    assert retry_after_ns([(b"server", b"x"), (b"retry-after", value), (b"retry-after", b"9")]) == found
    assert retry_after_ns([(b"server", b"x")]) is None


def test_b12_retry_after_as_a_date_is_counted_from_now() -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    found = retry_after_ns([(b"retry-after", format_datetime(then, usegmt=True).encode())])
    assert found is not None
    assert 90e9 < found <= 100e9


def test_the_error_event_is_one_event_of_our_shape() -> None:
    data = error_event(UpstreamBroken("line\nbreak"))
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    assert data.count(b"\n") == 2
    assert orjson.loads(data[6:]) == {
        "error": {"message": "line\nbreak", "type": "upstream_error", "param": None, "code": "upstream_broken"}
    }
