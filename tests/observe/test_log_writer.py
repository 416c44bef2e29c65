"""The line of an exchange, put together straight: to the byte what the log writes for the same fields."""

import json
import logging
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.request.apikey import mint
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import NexusError, leaves
from nexus_proxy.observe.log import Logger, configure
from nexus_proxy.observe.log_writer import LINE_BYTES_MAX, PARTIES_MAX, ExchangeLog, Redactor, Stamp
from nexus_proxy.observe.record import Record
from nexus_proxy.web.response import new_request_id

KEY = mint(bytes(range(32)))
SECRET = "id.zhipu-secret"
PARTIES = ("POST", "completions", "acme", "a1b2", "m", "p")
PLAIN: dict[str, Any] = {
    "streamed": True,
    "status": 200,
    "code": None,
    "end_state": EndState.COMPLETE,
    "usage_source": UsageSource.REPORTED,
    "usage": Usage(100, 20, cached=60),
    "charge": "0.000041",
    "late": False,
    "first_byte_s": 0.5,
    "duration_s": 2.0,
}
EMPTY = dict.fromkeys(("code", "end_state", "usage_source", "usage", "charge", "first_byte_s"))


def record(request_id: str, parties: tuple[str, ...], given: dict[str, Any]) -> Record:
    """Return the record of a request that had an exchange."""
    method, route, account, key_hint, model, provider = parties
    return Record(
        request_id=request_id,
        method=method,
        route=route,
        account=account,
        key_hint=key_hint,
        model=model,
        provider=provider,
        exchanged=True,
        **given,
    )


class Both:
    """One log that is written to in both ways."""

    def __init__(self, path: Path, level: int = logging.INFO) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.log: Logger = configure(self._fd, level=level, secrets=[SECRET])

    def write(self, request_id: str, parties: tuple[str, ...], given: dict[str, Any]) -> None:
        """Write the same line twice: straight, and as an event with these fields."""
        method, route, account, key_hint, model, provider = parties
        usage = given["usage"]
        self.log.exchanges.write(record(request_id, parties, given))
        self.log.bound.info(
            "request",
            request_id=request_id,
            method=method,
            route=route,
            account=account,
            key_hint=key_hint,
            model=model,
            provider=provider,
            streamed=given["streamed"],
            status=given["status"],
            code=given["code"],
            end_state=given["end_state"],
            usage_source=given["usage_source"],
            prompt_tokens=usage.prompt if usage is not None else None,
            cached_tokens=usage.cached if usage is not None else None,
            completion_tokens=usage.completion if usage is not None else None,
            charge=given["charge"],
            late=given["late"],
            first_byte_ms=None if given["first_byte_s"] is None else int(given["first_byte_s"] * 1000),
            duration_ms=int(given["duration_s"] * 1000),
        )

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Close the log; return what both ways wrote, but for the instants."""
        assert self.log.close()
        os.close(self._fd)
        text = re.sub(
            rb'("timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{6})?Z"', b'"timestamp":""', self._path.read_bytes()
        )
        lines = text.split(b"\n")[:-1]
        return list(zip(lines[::2], lines[1::2], strict=True))


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path / "log")


ODD = (
    'a"quo\\te',
    "🦊 füchse 狐",
    "\x00\x1b[2J\n\r\t\x7f",
    "\u2028",
    KEY,
    f"x {SECRET} y",
    "Bearer a-token",
    "desk-",
    "",
)


@pytest.mark.parametrize(
    "change", [{}, EMPTY, {"late": True, "streamed": False, "code": "upstream_broken", "status": 502}]
)
def test_the_straight_way_writes_what_the_log_does(both: Both, change: dict[str, Any]) -> None:
    both.write("req_1", PARTIES, PLAIN | change)
    for place in range(2, len(PARTIES)):
        for odd in ODD:
            both.write("req_1", (*PARTIES[:place], odd, *PARTIES[place + 1 :]), PLAIN | change)
    pairs = both.pairs()
    assert len(pairs) == 1 + 4 * len(ODD)
    for straight, usual in pairs:
        assert straight == usual
        for secret in (KEY[12:20].encode(), b"zhipu-secret", b"a-token"):
            assert secret not in straight


def test_f12_what_only_another_encoder_takes_is_escaped_too(both: Both) -> None:
    both.write("req_1", ("POST", "completions", 'a"\ud800', "h", "m", KEY), PLAIN)
    ((straight, usual),) = both.pairs()
    assert json.loads(straight) == json.loads(usual)
    assert json.loads(straight)["account"] == 'a"\ud800'
    assert json.loads(straight)["provider"] == "[redacted]"


COUNT = st.integers(0, 10**12)
NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "status": st.integers(100, 599),
    "streamed": st.booleans(),
    "late": st.booleans(),
    "first_byte_s": st.none() | st.floats(0, 2**30),
    "duration_s": st.floats(0, 2**30),
}
FIELDS = st.fixed_dictionaries(
    {
        "code": st.sampled_from([None, "upstream_broken", "client_gone"]),
        "end_state": st.sampled_from([None, *EndState]),
        "usage_source": st.sampled_from([None, *UsageSource]),
        "usage": st.none() | st.builds(Usage, COUNT, COUNT, COUNT),
        "charge": st.none() | st.integers(0, 2**62).map(format_nano),
        **NUMBERS,
    }
)
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from([KEY, f"sk-{KEY}", "Bearer x", SECRET])
TEXTS = st.tuples(*[st.lists(TEXT, max_size=3).map("".join)] * 6)


@given(st.lists(st.tuples(TEXTS, FIELDS), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_line_is_what_the_log_would_write(
    tmp_path: Path, given: list[tuple[tuple[str, ...], dict[str, Any]]]
) -> None:
    both = Both(tmp_path / "any")
    for parties, fields in given:
        both.write("req_1", parties, fields)
    for straight, usual in both.pairs():
        assert straight == usual


def test_a_line_has_a_limit_here_too(both: Both) -> None:
    both.write("req_1", (*PARTIES[:4], "m" * LINE_BYTES_MAX, "p"), PLAIN)
    ((straight, usual),) = both.pairs()
    assert straight == usual
    assert json.loads(straight)["cut_bytes"] > LINE_BYTES_MAX


def test_it_is_as_silent_as_its_level_asks(tmp_path: Path) -> None:
    both = Both(tmp_path / "log", logging.WARNING)
    both.write("req_1", PARTIES, PLAIN)
    assert both.pairs() == []


def test_the_parties_are_escaped_once_and_a_bounded_number_is_kept() -> None:
    lines: list[bytes] = []
    log = ExchangeLog(lines.append, Redactor())
    for account in ("a", "b", "a", "b"):
        log.write(record("req_1", ("POST", "completions", account, "h", "m", "p"), PLAIN))
    assert len(lines) == 4
    assert log._parties.cache_info().misses == 2
    for number in range(PARTIES_MAX + 10):
        log.write(record("req_1", ("POST", "completions", str(number), "h", "m", "p"), PLAIN))
    assert log._parties.cache_info().currsize == PARTIES_MAX


@given(st.lists(st.integers(0, 4 * 10**18), min_size=1))
@example([1_700_000_000_000_000_000, 1_700_000_000_999_999_999, 1_700_000_001_000_000_999, 1_700_000_000_000_001_000])
def test_an_instant_is_written_as_the_logs_encoder_does(instants_ns: list[int]) -> None:
    stamp = Stamp()
    for instant_ns in instants_ns:
        second, rest_ns = divmod(instant_ns, 10**9)
        instant = datetime.fromtimestamp(second, UTC).replace(microsecond=rest_ns // 1_000)
        assert f'"{stamp.of(instant_ns)}"'.encode() == orjson.dumps(instant, option=orjson.OPT_UTC_Z)


def test_what_is_our_own_in_a_line_needs_no_escape_and_holds_no_credential() -> None:
    words = [new_request_id(), *EndState, *UsageSource, *(leaf.code for leaf in leaves(NexusError))]
    assert all(re.fullmatch(r"[a-z0-9_]+", word) for word in words)
