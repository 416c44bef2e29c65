"""Metrics: every one that is declared is there, and no text of a client's makes a series."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from nexus_proxy.core.money.settlement import EndState, UsageSource, Verdict
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import NexusError, leaves
from nexus_proxy.observe.metrics import METRICS, Metrics
from nexus_proxy.observe.record import Record

USAGE = Usage(prompt=100, completion=20, cached=60, cache_write=10, reasoning=5)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.render()[0].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def settle(metrics: Metrics, **changes: Any) -> None:
    verdict = Verdict(
        end_state=changes.pop("end_state", EndState.COMPLETE),
        usage_source=changes.pop("usage_source", UsageSource.REPORTED),
        usage=changes.pop("usage", USAGE),
        charge_nano=1_500_000_000,
        cost_nano=2_000_000_000,
    )
    given: dict[str, Any] = {
        "model": "m",
        "provider": "p",
        "verdict": verdict,
        "charged_nano": 1_500_000_000,
        "overrun_nano": 0,
        "cost_currency": "CNY",
    }
    metrics.settled(**given | changes)


def finish(metrics: Metrics, **changes: Any) -> None:
    """Let a request be over, without an exchange unless the changes say so."""
    parties = {"request_id": "req_1", "method": "POST", "route": "completions", "account": None, "key_hint": None}
    given: dict[str, Any] = {"model": "m", "provider": "p", "status": 200, "code": None, "duration_s": 0.1}
    metrics.finished(Record(**parties | given | changes))


def exchanged(metrics: Metrics, **changes: Any) -> None:
    finish(metrics, exchanged=True, **changes)


def test_every_declared_metric_is_rendered_and_no_other_of_ours() -> None:
    text, content_type = Metrics({"m": "p"}).render()
    found = {line.split()[2] for line in text.decode().splitlines() if line.startswith("# HELP nexus_")}
    assert found == set(METRICS)
    assert content_type.startswith("text/plain")
    assert b"process_resident_memory_bytes" in text
    assert b"_created" not in text


def test_a_request_is_counted_under_its_model_status_and_code() -> None:
    metrics = Metrics({"m": "p"})
    for _ in range(2):
        finish(metrics, model="m", provider="p", status=200, code=None, duration_s=0.1)
    finish(metrics, model=None, provider=None, status=401, code="invalid_api_key", duration_s=0.1)
    assert value(metrics, "nexus_requests_total", model="m", provider="p", status="200", code="ok") == 2
    other = {"model": "other", "provider": "none", "status": "401", "code": "invalid_api_key"}
    assert value(metrics, "nexus_requests_total", **other) == 1
    assert value(metrics, "nexus_request_duration_seconds_count", model="m") == 2


def test_a_settlement_is_counted_by_kind_of_token_and_currency() -> None:
    metrics = Metrics({"m": "p"})
    settle(metrics, charged_nano=1_250_000_000)  # less than the verdict: what was paid counts
    counted = {"prompt": 100, "cached": 60, "cache_write": 10, "completion": 20, "reasoning": 5}
    for kind, count in counted.items():
        assert value(metrics, "nexus_tokens_total", model="m", kind=kind) == count
    assert value(metrics, "nexus_charge_total", model="m") == 1.25
    assert value(metrics, "nexus_cost_total", model="m", currency="CNY") == 2.0
    assert value(metrics, "nexus_overrun_total") == 0


def test_charges_are_summed_without_a_rounding() -> None:
    metrics = Metrics({"m": "p"})
    settle(metrics, charged_nano=2**60)
    for _ in range(1_000):
        settle(metrics, charged_nano=1)  # each for itself is too small to be seen beside a float of that size
    assert value(metrics, "nexus_charge_total", model="m") == (2**60 + 1_000) / 1_000_000_000 != 2**60 / 1_000_000_000


def begun_at_zero() -> set[tuple[object, ...]]:
    """Return the series in which the first failure must be a rise, or no alert sees it."""
    codes = ("auth", "broken", "model", "no_funds", "overloaded", "rate_limited", "timeout", "unreachable")
    p, causes = ("provider", "p"), {(leaf.status, leaf.code) for leaf in leaves(NexusError)}
    series: set[tuple[object, ...]] = {
        ("nexus_upstream_errors_total", ("code", f"upstream_{code}"), p) for code in codes
    }
    series |= {(f"nexus_usage_{what}_total", p) for what in ("missing", "flagged")}
    series |= {("nexus_drains_total", ("result", source.value)) for source in UsageSource}
    failed = {(500, "internal_error"), (503, "overloaded"), (503, "shutting_down"), (503, "ledger_unavailable")}
    failed |= {(status, code) for status, code in causes if code.startswith("upstream_")}
    answered = {("other", "none", *cause) for cause in causes if not cause[1].startswith("upstream_")}
    answered |= {("m", "p", *cause) for cause in failed | {(200, "ok")}}
    return series | {
        ("nexus_requests_total", ("code", code), ("model", model), ("provider", provider), ("status", str(status)))
        for model, provider, status, code in answered
    }


def test_what_no_request_has_touched_yet() -> None:
    found = samples(Metrics({"m": "p"}))
    ours = {(name, *sorted(labels)) for name, labels in found if name.startswith("nexus_") and "_bucket" not in name}
    kinds = ("prompt", "cached", "cache_write", "completion", "reasoning")
    models = [("model", model) for model in ("m", "other")]
    by_model = [
        ("nexus_charge_total",),
        *((f"nexus_{what}_seconds_{end}",) for what in ("request_duration", "first_byte") for end in ("count", "sum")),
    ]
    expected: set[tuple[object, ...]] = {(*name, model) for name in by_model for model in models}
    expected |= {("nexus_tokens_total", ("kind", kind), model) for kind in kinds for model in models}
    assert {series for series in ours if len(series) > 1} - begun_at_zero() == expected
    assert begun_at_zero() <= ours
    assert set(found.values()) - {found[key] for key in found if not key[0].startswith("nexus_")} <= {0.0}


def test_b24_what_an_operator_must_look_at_is_counted() -> None:
    metrics = Metrics({"m": "p"})
    settle(metrics, usage_source=UsageSource.ESTIMATED)
    settle(metrics, end_state=EndState.CLIENT_GONE, usage_source=UsageSource.DRAINED, overrun_nano=1)
    settle(metrics, usage=Usage(1, 1, flagged=True))
    exchanged(metrics, first_byte_s=0.2, late=True)
    exchanged(metrics, status=502, code="upstream_broken")
    exchanged(metrics, status=499, code="client_gone")
    assert value(metrics, "nexus_usage_missing_total", provider="p") == 1
    assert value(metrics, "nexus_usage_flagged_total", provider="p") == 1
    assert value(metrics, "nexus_settle_late_total") == 1
    assert value(metrics, "nexus_overrun_total") == 1
    assert value(metrics, "nexus_drains_total", result="drained") == 1
    assert value(metrics, "nexus_upstream_errors_total", provider="p", code="upstream_broken") == 1
    assert value(metrics, "nexus_upstream_errors_total", provider="p", code="client_gone") is None
    assert value(metrics, "nexus_requests_total", model="m", provider="p", status="499", code="client_gone") == 1
    assert value(metrics, "nexus_request_duration_seconds_count", model="m") == 3
    assert value(metrics, "nexus_first_byte_seconds_count", model="m") == 1


def test_the_rest_is_what_it_is_set_to() -> None:
    metrics = Metrics({})
    metrics.rate_limited()
    metrics.batch(3, 0.002)
    metrics.ledger(busy=1, withdrawn=2)
    metrics.ledger(busy=8, withdrawn=6)
    metrics.recovered(7)
    metrics.lines_dropped(4)
    metrics.drains(2)
    metrics.open_exchanges(5)
    metrics.lag(0.25)
    found = {name: number for (name, labels), number in samples(metrics).items() if not labels}
    expected = {
        "nexus_rate_limited_total": 1,
        "nexus_ledger_batch_size_sum": 3,
        "nexus_ledger_commit_seconds_sum": 0.002,
        "nexus_ledger_busy_total": 8,
        "nexus_holds_withdrawn_total": 6,
        "nexus_recovered_holds_total": 7,
        "nexus_log_lines_dropped_total": 4,
        "nexus_drains_open": 2,
        "nexus_holds_open": 5,
        "nexus_event_loop_lag_seconds": 0.25,
    }
    assert {name: found[name] for name in expected} == expected


def test_f3_f13_a_model_that_is_not_configured_makes_no_series() -> None:
    metrics = Metrics({"m": "p"})
    finish(metrics, model="canary", provider=None, status=404, code="model_not_found", duration_s=0.1)
    before = len(samples(metrics))
    for number in range(1_000):
        finish(metrics, model=f"canary-{number}", provider=None, status=404, code="model_not_found", duration_s=0.1)
    assert len(samples(metrics)) == before
    assert b"canary" not in metrics.render()[0]


def test_two_servers_in_one_process_do_not_mix() -> None:
    one, two = Metrics({"m": "p"}), Metrics({"m": "p"})
    one.rate_limited()
    assert value(two, "nexus_rate_limited_total") == 0
