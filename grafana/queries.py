"""What a panel asks: PromQL, or SQL of the ledger, and the pieces that every query is put together of.

Strategy: a query is a value, whichever its data source; none names a data source, only the variable in which one is
chosen. Macros and variables stay in the text for Grafana to fill in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SQLITE: Final = "frser-sqlite-datasource"
METRICS: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
LEDGER: Final = common.DataSourceRef(type_val=SQLITE, uid="${ledger}")
CHOSEN: Final = ('job=~"$job"', 'instance=~"$instance"')  # of the doors that are scraped


@dataclass
class SqlQuery(Dataquery):
    """A query of the SQLite plugin. `times` are the columns that are instants: RFC 3339 text, or seconds since 1970."""

    text: str
    times: Sequence[str]
    series: bool
    ref_id: str = "A"

    def to_json(self) -> dict[str, object]:
        """Return it as the plugin reads it: `rawQueryText` is edited and filled in, and becomes `queryText`."""
        return {
            "refId": self.ref_id,
            "datasource": LEDGER,
            "queryType": "time series" if self.series else "table",
            "rawQueryText": self.text,
            "queryText": self.text,
            "timeColumns": list(self.times),
        }


@dataclass(frozen=True)
class Query:
    """One query of a panel, whichever its data source."""

    text: str
    legend: str = ""
    times: Sequence[str] = ()
    instant: bool = False
    is_sql: bool = False
    series: bool = False

    def target(self, ref_id: str, form: PromQueryFormat) -> Dataquery:
        """Return it as Grafana wants it."""
        if self.is_sql:
            return SqlQuery(self.text, self.times, self.series, ref_id)
        query = prometheus.Dataquery().datasource(METRICS).ref_id(ref_id).expr(self.text).format(form)
        query = query.instant() if self.instant else query.range()
        return query.legend_format(self.legend).build()


def promql(text: str, legend: str = "") -> Query:
    """Return a query of Prometheus over the picker's range. Its series are named by the legend, `{{model}}`."""
    return Query(text, legend)


def over_range(text: str, legend: str = "") -> Query:
    """Return a query of Prometheus for one number for the whole of the picker's range, which is `$__range`."""
    return Query(text, legend, instant=True)


def sql(text: str, *times: str) -> Query:
    """Return a query of the ledger for a table."""
    return Query(text.strip(), times=times, is_sql=True)


def sql_series(text: str) -> Query:
    """Return a query of the ledger for a chart: columns `time` (ascending), one of text that names it, and numbers."""
    return Query(text.strip(), times=("time",), is_sql=True, series=True)


def metric(name: str, *matchers: str) -> str:
    """Return the series of a metric of the chosen doors, and with these labels."""
    return f"{name}{{{', '.join((*CHOSEN, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """Return a counter's rise in a second."""
    return f"rate({metric(name, *matchers)}[$__rate_interval])"


def rise(name: str, *matchers: str) -> str:
    """Return a counter's rise over the whole of the picker's range."""
    return f"increase({metric(name, *matchers)}[$__range])"


def quantile(share: float, name: str, *matchers: str, by: str = "") -> str:
    """Return a quantile of a histogram, of each value of the label `by` if there is one."""
    return f"histogram_quantile({share}, sum by ({', '.join(filter(None, ('le', by)))}) ({rate(name, *matchers)}))"


def share(part: str, whole: str) -> str:
    """Return part / whole; 0 where there is no part, or nothing at all."""
    return f"(({part}) or vector(0)) / clamp_min({whole}, 1e-9)"
