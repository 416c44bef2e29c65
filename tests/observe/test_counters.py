"""Counts as plain numbers: the text is the one that the client library's own objects would have made."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from nexus_proxy.observe.counters import CounterFamily, HistogramFamily

BOUNDS = (0.005, 0.5, 1, 2.5, 1_000)
VALUES = st.text('a"\\\n é', max_size=3)
AMOUNTS = st.sampled_from(BOUNDS) | st.floats(0, 2_000)

disable_created_metrics()  # type: ignore[no-untyped-call]


@given(st.lists(st.tuples(VALUES, VALUES, st.integers(0, 1_000_000))))
def test_counts_read_like_the_librarys_counters(steps: Sequence[tuple[str, str, int]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts, plain = (
        CounterFamily(ours, "b_total", "What it is.", ("z", "a")),
        CounterFamily(ours, "c_total", "Another."),
    )
    counters = Counter("b_total", "What it is.", ("z", "a"), registry=theirs)
    counter = Counter("c_total", "Another.", registry=theirs)
    total = plain.of()
    for one, other, step in steps:
        counts.of(one, other).value += step
        total.value += step
        counters.labels(one, other).inc(step)
        counter.inc(step)
    assert generate_latest(ours) == generate_latest(theirs)


@given(st.lists(st.tuples(VALUES, AMOUNTS)))
def test_spreads_read_like_the_librarys_histograms(amounts: Sequence[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spreads, plain = (
        HistogramFamily(ours, "b", "What it is.", BOUNDS, ("a",)),
        HistogramFamily(ours, "c", "Another.", BOUNDS),
    )
    histograms = Histogram("b", "What it is.", ("a",), buckets=BOUNDS, registry=theirs)
    histogram = Histogram("c", "Another.", buckets=BOUNDS, registry=theirs)
    every = plain.of()
    for value, amount in amounts:
        spreads.of(value).observe(amount)
        every.observe(amount)
        histograms.labels(value).observe(amount)
        histogram.observe(amount)
    assert generate_latest(ours) == generate_latest(theirs)


def test_an_amount_in_small_units_is_divided_once() -> None:
    registry = CollectorRegistry()
    amounts = CounterFamily(registry, "paid_total", "What was paid.", per=1_000_000_000)
    for _ in range(10):
        amounts.of().value += 100_000_001  # ten times, which floats do not bring to this
    assert b"\npaid_total 1.00000001\n" in generate_latest(registry)
