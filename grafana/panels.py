"""The kinds of panels that a dashboard is a list of.

Strategy: thin functions over Grafana's own SDK. Every panel is given a unit, and a text that says what to do when it
looks wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common as look
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import Query, metric, promql

# Units, as Grafana calls them.
REQUESTS: Final = "reqps"  # in a second
EVENTS: Final = "ops"  # in a second
SECONDS: Final = "s"
SHARE: Final = "percentunit"
COUNT: Final = "short"
MONEY: Final = "locale"  # with separators, never shortened; the titles name the currency
MONEY_DECIMALS: Final = 6  # at most, and without them at most 3: a request may cost a ten-thousandth
BYTES: Final = "bytes"

Steps = tuple[tuple[str, float | None], ...]  # colours, and the values from which they hold; None: from the least


def above(yellow: float | None = None, red: float | None = None) -> Steps:
    """Return green, and yellow and red from these values on."""
    return (("green", None), *((colour, at) for colour, at in (("yellow", yellow), ("red", red)) if at is not None))


def below(red: float, yellow: float | None = None) -> Steps:
    """Return green, and yellow and red below these values."""
    return (("red", None), ("green", red)) if yellow is None else (("red", None), ("yellow", red), ("green", yellow))


FINE: Final = above()
NEVER: Final = above(red=1)  # red from the first one


class Panel(Protocol):
    """What all panels' builders of the SDK can."""

    def title(self, title: str, /) -> Self: ...
    def description(self, description: str, /) -> Self: ...
    def unit(self, unit: str, /) -> Self: ...
    def height(self, h: int, /) -> Self: ...
    def span(self, w: int, /) -> Self: ...
    def id(self, id_val: int, /) -> Self: ...
    def datasource(self, datasource: common.DataSourceRef, /) -> Self: ...
    def targets(self, targets: list[Builder[Dataquery]], /) -> Self: ...
    def thresholds(self, thresholds: Builder[dashboard.ThresholdsConfig], /) -> Self: ...
    def decimals(self, decimals: float, /) -> Self: ...
    def no_value(self, no_value: str, /) -> Self: ...
    def build(self) -> dashboard.Panel: ...


P = TypeVar("P", bound=Panel)


def tile(
    title: str,
    unit: str,
    text: str,
    *queries: Query,
    steps: Steps = FINE,
    decimals: int | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    width: int = 3,
) -> stat.Panel:
    """Return the newest value, large. It turns yellow and red at `steps`; `words` are said, coloured, for values."""
    panel = stat.Panel().reduce_options(look.ReduceDataOptions().calcs(["lastNotNull"]))
    colour = common.BigValueColorMode.VALUE if steps == FINE and not words else common.BigValueColorMode.BACKGROUND
    panel = panel.color_mode(colour)
    if words:
        options = {
            value: dashboard.ValueMappingResult(text=word, color=colour, index=index)
            for index, (value, (word, colour)) in enumerate(words.items())
        }
        panel = panel.mappings([dashboard.ValueMap(options=options)])
    panel = _told(panel, title, unit, text, queries, steps).height(4).span(width)
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    unit: str,
    text: str,
    *queries: Query,
    stacked: bool = False,
    bars: bool = False,
    rare: bool = False,
    steps: Steps = FINE,
    width: int = 8,
) -> timeseries.Panel:
    """Return lines over time, or stacked areas or bars; a step that is given is drawn as a line across.

    `rare`: most of the series are always 0, and are not named then.
    """
    panel = timeseries.Panel().legend(
        look.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    panel = panel.tooltip(
        look.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    )
    panel = panel.line_width(1).axis_soft_min(0).show_points(common.VisibilityMode.AUTO)
    if stacked or bars:
        panel = panel.stacking(look.StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(40)
    if bars:
        panel = panel.draw_style(common.GraphDrawStyle.BARS).bar_alignment(common.BarAlignment.AFTER).fill_opacity(80)
        # A table of times, names and amounts. The plugin's own "time series" is an error where there are no rows.
        panel = panel.with_transformation(
            dashboard.DataTransformerConfig("prepareTimeSeries", options={"format": "multi"})
        )
        panel = panel.display_name("${__field.labels.model}")  # else the value's column stands before it
    if rare:
        never = dashboard.MatcherConfig(id_val="byValue", options={"op": "gte", "reducer": "allIsZero", "value": 0})
        unnamed = {"legend": True, "tooltip": True, "viz": False}
        panel = panel.with_override(never, [dashboard.DynamicConfigValue(id_val="custom.hideFrom", value=unnamed)])
    if steps != FINE:
        dashed = look.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(dashed)
    return _told(panel, title, unit, text, queries, steps).height(8).span(width)


def heat(title: str, unit: str, text: str, name: str, *matchers: str, width: int = 12) -> heatmap.Panel:
    """Return how a histogram's buckets fill over time."""
    query = promql(f"sum by (le) (increase({metric(name, *matchers)}[$__rate_interval]))", "{{le}}")
    colour = heatmap.HeatmapColorOptions().scheme("Oranges").steps(32)
    panel = heatmap.Panel().calculate(False).y_axis(heatmap.YAxisConfig().unit(unit)).color(colour)
    panel = panel.cell_values(heatmap.CellValues().unit(COUNT)).show_legend()
    return _told(panel, title, unit, text, (query,), FINE, PromQueryFormat.HEATMAP).height(8).span(width)


def rows(
    title: str,
    unit: str,
    text: str,
    query: Query,
    *,
    units: Mapping[str, str] | None = None,
    steps: Mapping[str, Steps] | None = None,
    width: int = 12,
) -> table.Panel:
    """Return a table. Columns have the unit that `units` says, else the panel's; `steps` colour a column's cells."""
    panel = table.Panel().filterable(True).cell_height(common.TableCellHeight.SM)
    panel = panel.override_by_field_type("string", [dashboard.DynamicConfigValue(id_val="unit", value="string")])
    properties: dict[str, list[dashboard.DynamicConfigValue]] = {}
    for column, name in (units or {}).items():
        properties.setdefault(column, []).append(dashboard.DynamicConfigValue(id_val="unit", value=name))
    for column, marks in (steps or {}).items():
        coloured = {"type": "color-text"}
        properties.setdefault(column, []).extend(
            (
                dashboard.DynamicConfigValue(id_val="thresholds", value=_thresholds(marks).build()),
                dashboard.DynamicConfigValue(id_val="custom.cellOptions", value=coloured),
                dashboard.DynamicConfigValue(id_val="mappings", value=[_nothing()]),
            )
        )
    for column, found in properties.items():
        panel = panel.override_by_name(column, found)
    return _told(panel, title, unit, text, (query,), FINE).no_value("").height(9).span(width)


def _told(
    panel: P,
    title: str,
    unit: str,
    text: str,
    queries: Sequence[Query],
    steps: Steps,
    form: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> P:
    targets = [_Built(query.target(chr(ord("A") + number), form)) for number, query in enumerate(queries)]
    panel = panel.title(title).unit(unit).description(text).datasource(queries[0].source).targets([*targets])
    if unit == MONEY:
        panel = panel.decimals(MONEY_DECIMALS)
    return panel.thresholds(_thresholds(steps)).no_value("no data")


def _nothing() -> dashboard.SpecialValueMap:
    """Return how a cell without a value is shown: else it has the colour of the least value."""
    shown = dashboard.ValueMappingResult(text="–", color="text")
    matched = dashboard.DashboardSpecialValueMapOptions(match=dashboard.SpecialValueMatch.NULL, result=shown)
    return dashboard.SpecialValueMap(options=matched)


def _thresholds(steps: Steps) -> builders.ThresholdsConfig:
    found = [dashboard.Threshold(color=colour, value=value) for colour, value in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


@dataclass(frozen=True)
class _Built(Builder[Dataquery]):
    """A target that is there already, for builders that ask for a builder."""

    query: Dataquery

    def build(self) -> Dataquery:
        return self.query
