"""Logs: one JSON line for each event, no credential in it, and no request that waits for it."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_proxy.core.request.apikey import mint
from nexus_proxy.observe.log import Logger, configure
from nexus_proxy.observe.log_writer import LINE_BYTES_MAX

KEY = mint(bytes(range(32)))
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Logger, Lines]]:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    logger = configure(fd, secrets=["id.zhipu-secret", "v1.sk-inner!zhipu-secret"])

    def lines() -> list[dict[str, Any]]:
        assert logger.close()
        return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]

    yield logger, lines
    logger.close()
    os.close(fd)


def test_an_event_is_one_line_with_its_context(log: tuple[Logger, Lines]) -> None:
    logger, lines = log
    logger.bound.bind(request_id="req-1").info("request", status=200, charge="0.10")
    logger.bound.debug("not at this level")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "request", "level": "info", "request_id": "req-1", "status": 200, "charge": "0.10"}


def test_the_short_way_of_info_writes_what_structlog_does(log: tuple[Logger, Lines], tmp_path: Path) -> None:
    logger, lines = log
    bound = logger.bound.bind(request_id="req-1", model="m")
    for values in (
        {},
        {"status": 200, "model": "n"},
        {"text": KEY},
        {"text": "x" * LINE_BYTES_MAX},
        {"text": "\ud800"},
    ):
        bound.info("request", **values)
        bound.msg("request", **values)  # the same level, by structlog's own steps
    try:
        raise ValueError("canary")
    except ValueError:
        bound.info("of %s", "two", exc_info=True)
        bound.msg("of %s", "two", exc_info=True)
    short, long = (written := lines())[::2], written[1::2]
    assert len(short) == len(long) == 6
    for one, other in zip(short, long, strict=True):
        assert datetime.fromisoformat(one.pop("timestamp")) <= datetime.fromisoformat(other.pop("timestamp"))
        assert list(one.items()) == list(other.items())
    assert list(written[2]) == ["request_id", "model", "status", "event", "level"]
    assert short[-1]["error"] == "ValueError"


def test_a_line_tells_the_time_in_utc(log: tuple[Logger, Lines]) -> None:
    logger, lines = log
    before = datetime.now(UTC)
    logger.bound.info("request")
    logger.bound.info("request", model="\ud800")  # which takes another encoder
    for line in lines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", line["timestamp"])
        assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)


def test_info_is_as_silent_as_its_level_asks(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    logger = configure(fd, level=logging.WARNING)
    logger.bound.info("request")
    logger.bound.warning("this only")
    assert logger.close()
    os.close(fd)
    assert [json.loads(line)["event"] for line in (tmp_path / "log").read_bytes().splitlines()] == ["this only"]


@pytest.mark.parametrize("text", ['a\nb\r\n{"event":"forged"}', "\x1b[2J\0", "\u2028\x85", "\ud800", 10**30, {1: b"x"}])
def test_f12_no_value_begins_a_line(log: tuple[Logger, Lines], text: Any) -> None:
    logger, lines = log
    logger.bound.info("request", model=text)
    (line,) = lines()
    assert line["event"] == "request"
    if isinstance(text, str):
        assert line["model"] == text


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"Authorization: Bearer {KEY}",
        f"GET /?key={KEY}",
        f"x{KEY}",
        f"line\n{KEY}",
        f"tab\x0b{KEY}",
        f"{KEY[:20]}",
        "authorization: BEARER a-token-of-another-kind",
        "sk-0123456789abcdef",
        "a\nsk-0123456789abcdef",
        "a\x0bsk-0123456789abcdef",
        "x id.zhipu-secret y",
        "bEARER a-token-of-another-kind",
        "with a Bearer\ta-token-of-another-kind",
        "v1.sk-inner!zhipu-secret",
    ],
)
def test_f2_no_credential_is_written_wherever_it_stands(log: tuple[Logger, Lines], text: str) -> None:
    logger, lines = log
    logger.bound.info(text, one=text, two={"three": [text]}, **{text: 1})
    try:
        raise ValueError(text)
    except ValueError:
        logger.bound.exception("fault")
        logging.getLogger("asyncio").exception(text)
    written = json.dumps(lines())
    for secret in (KEY[12:20], "0123456789abcdef", "a-token-of-another-kind", "zhipu-secret"):
        assert secret not in written


def test_words_that_only_look_like_a_credential_stay(log: tuple[Logger, Lines]) -> None:
    logger, lines = log
    logger.bound.info("task-cancelled", model="qwen-max", disk="disk-usage-percent", sk="sk-short")
    (line,) = lines()
    assert (line["event"], line["disk"], line["sk"]) == ("task-cancelled", "disk-usage-percent", "sk-short")


def test_f2_a_library_cannot_quote_what_a_client_sent(log: tuple[Logger, Lines]) -> None:
    logger, lines = log
    try:
        raise ValueError("400, message: bad header b'X-Api-Key: canary-header'")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling request from %s", "canary-peer")
    asyncio = logging.getLogger("asyncio")
    asyncio.warning("Executing %s took %.3f seconds", "<Task canary>", 0.2)
    asyncio.error("Task exception was never retrieved\nfuture: <Task exception=ValueError('canary')>")
    asyncio.error("Exception in callback on_data(b'canary')")
    asyncio.error(ValueError("canary"))
    del logger
    first, *others = lines()
    assert "canary" not in json.dumps([first, *others])
    assert (first["event"], first["error"], first["level"]) == ("Error handling request from %s", "ValueError", "error")
    assert [line["event"] for line in others] == [
        "Executing %s took %.3f seconds",
        "Task exception was never retrieved",
        "Exception in callback on_data",
        "ValueError",
    ]
    assert all(__file__ in line["where"] for line in others)


def test_an_exception_is_written_without_source_text_or_values(log: tuple[Logger, Lines]) -> None:
    logger, lines = log
    try:
        raise KeyError("canary")
    except KeyError as error:
        logger.bound.exception("fault")
        logger.bound.error("fault", exc_info=error, cause=error)
    line, other = lines()
    assert "canary" not in json.dumps([line, other])
    assert (line["error"], other["error"], other["cause"]) == ("KeyError", "KeyError", "KeyError")
    assert line["frames"][-1].endswith("test_an_exception_is_written_without_source_text_or_values")


def test_a_line_has_a_limit(log: tuple[Logger, Lines]) -> None:
    logger, lines = log
    logger.bound.info("request", request_id="req-1", text="x" * LINE_BYTES_MAX)
    (line,) = lines()
    assert (line["event"], line["request_id"]) == ("request", "req-1")
    assert line["cut_bytes"] > LINE_BYTES_MAX


VALUES = st.recursive(st.text() | st.integers() | st.floats() | st.binary(), st.lists, max_leaves=4)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_nothing_that_is_logged_raises_or_is_lost(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    path = tmp_path / "any"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    logger = configure(fd)
    for fields in events:
        logger.bound.info("request", fields=fields)
    assert logger.close()
    os.close(fd)
    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines()] == ["request"] * len(events)


def test_d23_a_blocked_pipe_stops_nobody_and_what_is_lost_is_counted() -> None:
    reader, writer = os.pipe()
    dropped: list[int] = []
    logger = configure(writer, lines_max=100)
    logger.on_dropped = dropped.append
    events = 5_000
    for number in range(events):
        logger.bound.info("request", number=number, text="x" * 1_000)  # far more than a pipe takes
    assert sum(dropped) > events / 2
    assert not logger.close(timeout_s=0.05)
    os.set_blocking(reader, False)
    received = b""
    while logger._writer._worker.is_alive():  # now somebody reads again
        try:
            received += os.read(reader, 1 << 20)
        except BlockingIOError:
            logger._writer._worker.join(0.01)
    os.close(writer)
    while chunk := os.read(reader, 1 << 20):
        received += chunk
    os.close(reader)
    numbers = [json.loads(line)["number"] for line in received.splitlines()]
    assert numbers == sorted(numbers)
    assert len(numbers) + sum(dropped) == events


def test_a_line_that_is_taken_in_pieces_is_written_whole_and_once(
    log: tuple[Logger, Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger, lines = log
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    for number in range(3):
        logger.bound.info("request", number=number, text="x" * 100)
    assert [line["number"] for line in lines()] == [0, 1, 2]


def test_d23_a_pipe_without_a_reader_is_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    dropped: list[int] = []
    logger = configure(writer)
    logger.on_dropped = dropped.append
    logger.bound.info("request")
    logger.bound.info("request")
    assert logger.close()
    os.close(writer)
    assert sum(dropped) == 2


def test_after_the_end_libraries_are_no_longer_heard(log: tuple[Logger, Lines]) -> None:
    _, lines = log
    assert lines() == []
    handlers = [type(handler).__name__ for handler in logging.getLogger().handlers]
    assert "_ForeignHandler" not in handlers
