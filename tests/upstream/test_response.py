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
        (b'text/plain;charset="utf-8"', "text/plain; charset=utf-8"),
        (b"Text/HTML; boundary=x; charset=GBK; q=1", "text/html; charset=gbk"),
        (b"application/problem+json; charset=latin-9", "application/json"),
        (b"text/json;charset=us-ascii;charset=gbk", "application/json; charset=us-ascii"),
        (b"application/json; \xff", "application/json"),
        (b"application/json\x7fx", "application/json"),
        (b"application", OTHER),
        (b"a/b", OTHER),
        (b"image/png", OTHER),
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
        (b" , ", None),
        (b"Identity, gzip", "gzip"),
        (b"zstd,x-gzip , compress,deflate", "zstd, x-gzip, compress, deflate"),
        (b"g\x01zip", "unknown"),
        (b"gzip;q=1", "unknown"),
        (b"gzip, other", "unknown"),
        (b"gzip," * 9, "unknown"),
        (b"x" * 41, "unknown"),
    ],
)
def test_b31_a_coding_that_came_unasked_is_seen(value: bytes, found: str | None) -> None:
    assert is_encoded([(b"server", b"x"), (b"content-encoding", value)]) == found
    assert is_encoded([(b"server", b"x")]) is None


def test_codings_may_stand_on_several_lines() -> None:
    assert is_encoded([(b"content-encoding", b"gzip"), (b"content-encoding", b"br")]) == "gzip, br"
    assert is_encoded([(b"content-encoding", b"identity"), (b"content-encoding", b"br")]) == "br"


KEY = "sk-canary-0123456789"


@pytest.mark.parametrize(
    "value",
    ["text/plain; charset=KEY", "text/plain; x=KEY; charset=utf-8", 'text/plain; x="KEY"', "text/KEY", "KEY/json"],
)
def test_f6_no_credential_leaves_in_a_head(value: str) -> None:
    value = value.replace("KEY", KEY)
    for said in (value, value.upper()):
        assert "canary" not in content_type_of([(b"content-type", said.encode())]).lower()
    for coding in (KEY, f"gzip, {KEY}", f"gzip;{KEY}"):
        assert is_encoded([(b"content-encoding", coding.encode())]) == "unknown"


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
