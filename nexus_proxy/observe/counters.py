"""Counts that one thread keeps as plain numbers, and that Prometheus reads when somebody asks.

Strategy: the client library takes a lock for each step and walks a histogram's buckets in Python; what every request
counts is stepped here instead, without a call into that library. It only writes the text: these are collectors for it.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString


class Count:
    """A number that goes up: whoever counts adds to `value`."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """How many amounts were at most each bound, and their sum."""

    __slots__ = ("_bounds", "numbers", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.numbers = [0] * (len(bounds) + 1)  # by bucket, each without those below it; the last has no bound
        self.total = 0.0

    def observe(self, amount: float) -> None:
        """Count one amount."""
        self.numbers[bisect_left(self._bounds, amount)] += 1
        self.total += amount


class CounterFamily:
    """Counts under one name, by the values of its labels. They are kept in units of which `per` are 1 in the text."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str] = (), per: int = 1
    ) -> None:
        self._name, self._text, self._labels, self._per = name, text, labels, per
        self._series: dict[tuple[str, ...], Count] = {}
        registry.register(self)

    def of(self, *values: str) -> Count:
        """Return the count with these values. It is in the text from now on."""
        return self._series.setdefault(values, Count())

    def collect(self) -> Iterable[Metric]:
        """Return what Prometheus is to read."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in list(self._series.items()):
            family.add_metric(values, count.value / self._per)  # exact integers until here
        return [family]


class HistogramFamily:
    """Histograms under one name, by the values of its labels. `bounds` ascend."""

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._buckets = [*map(floatToGoString, bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Histogram] = {}
        registry.register(self)

    def of(self, *values: str) -> Histogram:
        """Return the histogram with these values. It is in the text from now on."""
        return self._series.setdefault(values, Histogram(self._bounds))

    def collect(self) -> Iterable[Metric]:
        """Return what Prometheus is to read."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, histogram in list(self._series.items()):
            family.add_metric(
                values, list(zip(self._buckets, accumulate(histogram.numbers), strict=True)), histogram.total
            )
        return [family]
