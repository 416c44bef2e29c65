"""What Prometheus is told.

Strategy: a registry of its own, so that two servers in one process do not mix. The values of a label are a closed set:
a model that is not configured is `other`, and no text of a client's ever is a label. The series that every request
touches are looked up once, and counted without the client library; what is rare is left to it. Prometheus sees no rise
in a series that begins at 1, so an alert would miss the first one: what can be known beforehand starts at 0.
"""

from collections.abc import Mapping
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.settlement import EndState, UsageSource, Verdict
from nexus_proxy.errors import ClientGone, NexusError, RequestError, UpstreamError, leaves
from nexus_proxy.observe.counters import Count, CounterFamily, HistogramFamily
from nexus_proxy.observe.record import Record

UPSTREAM: Final = "upstream_"  # what the codes of a provider's failures begin with
OTHER: Final = "other"  # the model of a request for none that is configured
NO_PROVIDER: Final = "none"
NO_CODE: Final = "ok"

METRICS: Mapping[str, str] = {
    "nexus_requests_total": "Requests answered, by model, provider, HTTP status and error code.",
    "nexus_request_duration_seconds": "Time from when a request could be read to its settlement.",
    "nexus_first_byte_seconds": "Time from when a request could be read to the first byte of its answer's body.",
    "nexus_tokens_total": "Tokens settled, by kind; cached and cache_write are in prompt, reasoning is in completion.",
    "nexus_charge_total": "What accounts were charged, in the deployment's currency.",
    "nexus_cost_total": "What providers bill for it, in their own currency.",
    "nexus_holds_open": "Exchanges under way, each with a hold that is not settled yet.",
    "nexus_ledger_batch_size": "Operations in one transaction of the ledger.",
    "nexus_ledger_commit_seconds": "Time of one transaction of the ledger, its durable commit included.",
    "nexus_ledger_busy_total": "Commits of the ledger that had to be tried again.",
    "nexus_holds_withdrawn_total": "Holds voided because nobody waited for them any more.",
    "nexus_settle_late_total": "Answers that were finished before their settlement was durable.",
    "nexus_usage_missing_total": "Answers without usage, charged by an estimate.",
    "nexus_usage_flagged_total": "Answers whose usage contradicted itself, or left out the reasoning that was seen.",
    "nexus_overrun_total": "Requests charged above their hold whose account could not pay the rest. Must stay 0.",
    "nexus_upstream_errors_total": "Exchanges that failed, by provider and error code.",
    "nexus_drains_open": "Exchanges that are read to their usage after their client has left.",
    "nexus_drains_total": "Exchanges whose client had left, by where the counts came from in the end.",
    "nexus_rate_limited_total": "Requests refused by our own rate limit.",
    "nexus_log_lines_dropped_total": "Log lines that were dropped because they could not be written in time.",
    "nexus_recovered_holds_total": "Holds of an earlier run that were ended at the start.",
    "nexus_event_loop_lag_seconds": "How late the event loop last was.",
}

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_COMMIT_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_BATCH_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """Every metric of one server. `models` are the configured ids, each with the name of its provider."""

    def __init__(self, models: Mapping[str, str]) -> None:
        # A second series beside each, that nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

        def counters(name: str, *labels: str, per: int = 1) -> CounterFamily:
            return CounterFamily(registry, name, METRICS[name], labels, per)

        def histograms(name: str, bounds: tuple[float, ...], *labels: str) -> HistogramFamily:
            return HistogramFamily(registry, name, METRICS[name], bounds, labels)

        def counter(name: str, *labels: str) -> Counter:
            return Counter(name, METRICS[name], labels, registry=registry)

        def gauge(name: str) -> Gauge:
            return Gauge(name, METRICS[name], registry=registry)

        self._requests = counters("nexus_requests_total", "model", "provider", "status", "code")
        self._duration = histograms("nexus_request_duration_seconds", _SECONDS, "model")
        self._first_byte = histograms("nexus_first_byte_seconds", _SECONDS, "model")
        self._tokens = counters("nexus_tokens_total", "model", "kind")
        self._charge = counters("nexus_charge_total", "model", per=NANO)
        self._cost = counters("nexus_cost_total", "model", "currency", per=NANO)
        self._holds_open = gauge("nexus_holds_open")
        self._batch_size = histograms("nexus_ledger_batch_size", _BATCH_SIZES).of()
        self._commit = histograms("nexus_ledger_commit_seconds", _COMMIT_SECONDS).of()
        self._busy = counters("nexus_ledger_busy_total").of()
        self._withdrawn = counters("nexus_holds_withdrawn_total").of()
        self._settle_late = counter("nexus_settle_late_total")
        self._usage_missing = counter("nexus_usage_missing_total", "provider")
        self._usage_flagged = counter("nexus_usage_flagged_total", "provider")
        self._overrun = counter("nexus_overrun_total")
        self._upstream_errors = counter("nexus_upstream_errors_total", "provider", "code")
        self._drains_open = gauge("nexus_drains_open")
        self._drains = counter("nexus_drains_total", "result")
        self._rate_limited = counter("nexus_rate_limited_total")
        self._lines_dropped = counter("nexus_log_lines_dropped_total")  # from any thread, which its lock is for
        self._recovered = counter("nexus_recovered_holds_total")
        self._lag = gauge("nexus_event_loop_lag_seconds")
        self._models: dict[str | None, _Model] = {model: _Model(self, model) for model in models}
        self._other = _Model(self, OTHER)
        self._begin_at_zero(models)

    def _begin_at_zero(self, models: Mapping[str, str]) -> None:
        for leaf in leaves(NexusError):
            theirs = leaf.code.startswith(UPSTREAM)
            if not issubclass(leaf, UpstreamError):
                self._answers_of(self._other, None, leaf.status, leaf.code)
            if theirs or not issubclass(leaf, UpstreamError | RequestError | ClientGone):  # what fails, theirs or ours
                for model, provider in models.items():
                    self._answers_of(self._models[model], provider, leaf.status, leaf.code)
                    if theirs:
                        self._upstream_errors.labels(provider, leaf.code)
        for model, provider in models.items():
            self._answers_of(self._models[model], provider, 200, None)
            self._usage_missing.labels(provider)
            self._usage_flagged.labels(provider)
        for source in UsageSource:
            self._drains.labels(source)

    def finished(self, record: Record) -> None:
        """Count a request that is over."""
        series = self._models.get(record.model, self._other)
        status, code = record.status, record.code
        answers = series.answers.get((status, code))
        if answers is None:
            answers = self._answers_of(series, record.provider, status, code)
        answers.value += 1
        series.duration.observe(record.duration_s)
        if not record.exchanged:
            return
        if record.first_byte_s is not None:
            series.first_byte.observe(record.first_byte_s)
        if code is not None and code.startswith(UPSTREAM):
            self._upstream_errors.labels(record.provider, code).inc()
        if record.late:
            self._settle_late.inc()

    def _answers_of(self, series: "_Model", provider: str | None, status: int, code: str | None) -> Count:
        answers = self._requests.of(series.model, provider or NO_PROVIDER, str(status), code or NO_CODE)
        series.answers[status, code] = answers
        return answers

    def settled(
        self,
        *,
        model: str,
        provider: str,
        verdict: Verdict,
        charged_nano: int,
        overrun_nano: int,
        cost_currency: str,
    ) -> None:
        """Count what the ledger made of a settlement."""
        series = self._models.get(model, self._other)
        usage = verdict.usage
        if usage is not None:
            series.prompt.value += usage.prompt
            series.cached.value += usage.cached
            series.cache_write.value += usage.cache_write
            series.completion.value += usage.completion
            series.reasoning.value += usage.reasoning
            if usage.flagged:
                self._usage_flagged.labels(provider).inc()
        series.charge.value += charged_nano
        if verdict.cost_nano:
            cost = series.cost.get(cost_currency)
            if cost is None:
                cost = series.cost[cost_currency] = self._cost.of(series.model, cost_currency)
            cost.value += verdict.cost_nano
        if verdict.usage_source is UsageSource.ESTIMATED:
            self._usage_missing.labels(provider).inc()
        if verdict.end_state is EndState.CLIENT_GONE:
            self._drains.labels(verdict.usage_source.value).inc()
        if overrun_nano:
            self._overrun.inc()

    def rate_limited(self) -> None:
        """Count a request that our own limit refused."""
        self._rate_limited.inc()

    def batch(self, operations: int, commit_s: float) -> None:
        """Note one transaction of the ledger."""
        self._batch_size.observe(operations)
        self._commit.observe(commit_s)

    def ledger(self, *, busy: int, withdrawn: int) -> None:
        """Note what the ledger's writer has counted since its start."""
        self._busy.value, self._withdrawn.value = busy, withdrawn

    def recovered(self, holds: int) -> None:
        """Count holds of an earlier run."""
        self._recovered.inc(holds)

    def lines_dropped(self, lines: int) -> None:
        """Count log lines that were lost. From any thread."""
        self._lines_dropped.inc(lines)

    def drains(self, taken: int) -> None:
        """Note how many drains are open."""
        self._drains_open.set(taken)

    def open_exchanges(self, number: int) -> None:
        """Note how many exchanges are under way."""
        self._holds_open.set(number)

    def lag(self, lag_s: float) -> None:
        """Note how late the event loop was."""
        self._lag.set(lag_s)

    def render(self) -> tuple[bytes, str]:
        """Return the text for a scrape, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Model:
    """The series of one model."""

    __slots__ = (
        "answers",
        "cache_write",
        "cached",
        "charge",
        "completion",
        "cost",
        "duration",
        "first_byte",
        "model",
        "prompt",
        "reasoning",
    )

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.model = model
        self.answers: dict[tuple[int, str | None], Count] = {}
        self.cost: dict[str, Count] = {}  # by currency
        self.duration = metrics._duration.of(model)
        self.first_byte = metrics._first_byte.of(model)
        self.charge = metrics._charge.of(model)
        self.prompt = metrics._tokens.of(model, "prompt")
        self.cached = metrics._tokens.of(model, "cached")
        self.cache_write = metrics._tokens.of(model, "cache_write")
        self.completion = metrics._tokens.of(model, "completion")
        self.reasoning = metrics._tokens.of(model, "reasoning")
