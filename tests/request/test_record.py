"""What is written down about a request: every key of its line, in order, and its metrics."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nexus_proxy.core.money.settlement import EndState, UsageSource, Verdict
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.directory import Account, Key
from nexus_proxy.ledger.protocol import AlreadySettled, Settled
from nexus_proxy.observe.log import configure
from nexus_proxy.observe.metrics import Metrics
from nexus_proxy.observe.request_log import RequestLog
from nexus_proxy.request.context import COMPLETIONS, RequestContext
from nexus_proxy.request.record import record_exchange, record_refused, record_settlement
from tests.rig.compiled import gives_stand_ins

pytestmark = gives_stand_ins

VERDICT = Verdict(EndState.COMPLETE, UsageSource.REPORTED, Usage(100, 20, cached=60), 42_000, 30_000)


class Recorder:
    """One application whose log can be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        self._log = configure(self._fd)
        self.charged: list[tuple[int, int]] = []
        self.metrics = Metrics({"m": "p"})
        directory = SimpleNamespace(charged=lambda account_id, nano: self.charged.append((account_id, nano)))
        self.services: Any = SimpleNamespace(
            setup=None,
            logger=self._log.bound,
            observers=(self.metrics, RequestLog(self._log.bound, self._log.exchanges)),
            loop=asyncio.get_running_loop(),
            metrics=self.metrics,
            directory=directory,
        )

    def context(self, route: str = COMPLETIONS, method: str = "POST") -> RequestContext:
        """Return the context of a request that came 2 seconds ago."""
        context = RequestContext(self.services, cast(Any, SimpleNamespace(method=method)), route)
        context.request_id = "req-1"
        context.started -= 2
        return context

    def lines(self) -> list[dict[str, Any]]:
        """Close the log and return what it holds."""
        assert self._log.close()
        lines = [json.loads(line) for line in self._path.read_bytes().splitlines()]
        for line in lines:
            assert line.pop("timestamp")
        return lines

    def close(self) -> None:
        self._log.close()
        os.close(self._fd)


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    found = Recorder(tmp_path / "log")
    yield found
    found.close()


def know(context: RequestContext, *, open_hold: Any = None, taken: bool = True) -> None:
    """Let a context have a key, a model and a call."""
    account = Account(1, "acme", None, suspended=False, paid_nano=0, spent_nano=0)
    context.key = Key(1, account, "k", "a1b2", models=None, rpm=None, expires_ms=None, revoked=False)
    model: Any = SimpleNamespace(id="m", provider="p")
    context.model = model
    context.call = cast(Any, SimpleNamespace(model=model, taken=taken, open_hold=open_hold))


def reserved(**changes: Any) -> Any:
    hold = SimpleNamespace(request_id="req-1", model="m", provider="p", streamed=True)
    given = {"hold": hold, "verdict": VERDICT, "settled": Settled(1, 41_000, 0), "late": False}
    return SimpleNamespace(**given | {"price": SimpleNamespace(cost_currency="CNY")} | changes)


async def test_the_line_of_an_exchange(recorder: Recorder) -> None:
    context = recorder.context()
    know(context, open_hold=reserved())
    exchange: Any = SimpleNamespace(first_byte=context.started + 0.5, error=None, status=200, echoed=False)
    record_exchange(context, exchange)
    (line,) = recorder.lines()
    assert 2_000 <= line.pop("duration_ms") < 60_000
    assert list(line.items()) == [
        ("request_id", "req-1"),
        ("method", "POST"),
        ("route", "completions"),
        ("account", "acme"),
        ("key_hint", "a1b2"),
        ("model", "m"),
        ("provider", "p"),
        ("streamed", True),
        ("status", 200),
        ("code", None),
        ("end_state", "complete"),
        ("usage_source", "reported"),
        ("prompt_tokens", 100),
        ("cached_tokens", 60),
        ("completion_tokens", 20),
        ("charge", "0.000041"),
        ("late", False),
        ("first_byte_ms", 500),
        ("event", "request"),
        ("level", "info"),
    ]
    text = recorder.metrics.render()[0]
    assert b'nexus_requests_total{code="ok",model="m",provider="p",status="200"} 1.0' in text
    assert b'nexus_first_byte_seconds_sum{model="m"} 0.5' in text


async def test_an_exchange_that_failed_and_is_not_settled(recorder: Recorder) -> None:
    context = recorder.context()
    know(context, open_hold=reserved(verdict=None, settled=None, late=True))
    error = SimpleNamespace(code="upstream_no_funds")
    exchange: Any = SimpleNamespace(first_byte=None, error=error, status=503, echoed=True)
    record_exchange(context, exchange)
    line, echo, alarm = recorder.lines()
    assert (echo["event"], echo["level"], echo["request_id"]) == ("credential_echoed", "error", "req-1")
    assert (line["status"], line["code"], line["late"]) == (503, "upstream_no_funds", True)
    unknown = ("end_state", "usage_source", "prompt_tokens", "cached_tokens", "completion_tokens", "charge")
    assert {line[name] for name in (*unknown, "first_byte_ms")} == {None}
    assert (alarm["event"], alarm["level"], alarm["provider"]) == ("provider_account", "error", "p")
    text = recorder.metrics.render()[0]
    assert b'nexus_upstream_errors_total{code="upstream_no_funds",provider="p"} 1.0' in text
    assert b"nexus_settle_late_total 1.0" in text


async def test_the_line_of_a_request_without_an_exchange(recorder: Recorder) -> None:
    record_refused(recorder.context("models", "GET"), 401, "invalid_api_key")
    left = recorder.context()
    know(left, open_hold=reserved(), taken=False)  # its call was never taken
    record_refused(left, 499, "client_gone")
    lines = recorder.lines()
    for line in lines:
        assert 2_000 <= line.pop("duration_ms") < 60_000
    assert [list(line.values()) for line in lines] == [
        ["req-1", "GET", "models", None, None, None, 401, "invalid_api_key", "request", "info"],
        ["req-1", "POST", "completions", "acme", "a1b2", "m", 499, "client_gone", "request", "info"],
    ]
    names = ["request_id", "method", "route", "account", "key_hint", "model", "status", "code", "event", "level"]
    assert [list(line) for line in lines] == [names, names]
    text = recorder.metrics.render()[0]
    assert b'nexus_requests_total{code="invalid_api_key",model="other",provider="none",status="401"} 1.0' in text
    assert b'nexus_requests_total{code="client_gone",model="m",provider="p",status="499"} 1.0' in text


async def test_a_call_that_was_taken_is_left_to_its_exchange(recorder: Recorder) -> None:
    context = recorder.context()
    know(context, open_hold=reserved())
    record_refused(context, 502, "upstream_broken")
    assert recorder.lines() == []
    counted = [line for line in recorder.metrics.render()[0].splitlines() if line.startswith(b"nexus_requests_total{")]
    assert [line for line in counted if not line.endswith(b" 0.0")] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"source": UsageSource.ESTIMATED}, [("warning", "usage_missing", "p")]),
        ({"overrun_nano": 1_500}, [("error", "overrun", "0.0000015")]),
        ({"twice": True}, [("error", "settled_twice", None)]),
    ],
)
async def test_a_settlement_is_counted_and_what_is_odd_about_it_is_said(
    recorder: Recorder, change: dict[str, Any], expected: list[tuple[str, str, str | None]]
) -> None:
    source = change.get("source", UsageSource.REPORTED)
    verdict = Verdict(EndState.COMPLETE, source, Usage(100, 20), 42_000, 30_000)
    outcome = AlreadySettled() if "twice" in change else Settled(1, 41_000, change.get("overrun_nano", 0))
    record_settlement(recorder.services, reserved(verdict=verdict), outcome)
    said = recorder.lines()
    assert [(s["level"], s["event"], s.get("provider") or s.get("missing")) for s in said] == expected
    assert recorder.charged == ([] if "twice" in change else [(1, 41_000)])
    charge = b"0.0" if "twice" in change else b"4.1e-05"
    assert b'nexus_charge_total{model="m"} ' + charge in recorder.metrics.render()[0]
