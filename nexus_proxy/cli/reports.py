"""The verbs that only tell: usage, models.

Strategy: what is long and the same in many rows, a source or a reason, stands once below the table, under a number or
a letter, so that a row is a line.
"""

import itertools
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.cli.arguments import Instant, Moment, json_option
from nexus_proxy.cli.prices import KINDS, NOT_ON, STALE_DAYS, Row, served_rows, unserved_rows
from nexus_proxy.cli.printing import counted, print_csv, print_json, print_line, print_table
from nexus_proxy.cli.reach import ask
from nexus_proxy.cli.settings import Settings
from nexus_proxy.config import Config
from nexus_proxy.core.money.prices import Schedule
from nexus_proxy.runtime.clock import now_ms

_USAGE = {
    "requests": "requests",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "reasoning_tokens": "reasoning",
    "charge": "charge",
    "currency": "",
}
_KINDS = {
    "input": "input",
    "cached_input": "cached",
    "cache_write": "write",
    "output": "output",
    "thinking": "thinking",
}
_MODELS = {
    "model": "model",
    "provider": "provider",
    "upstream_model": "provider's id",
    "when": "when",
    **_KINDS,
    "context": "context",
    "max_output": "max out",
}
_MODELS_SPARE = ("upstream_model", "provider", "max_output", "context", "cache_write")
_PRICES = {
    "model": "model",
    "provider": "provider",
    "when": "when",
    "now": "now",
    "what": "what",
    "currency": "",
    **_KINDS,
    "dated": "dated",
    "confidence": "sure",
    "source": "source",
}
_PRICES_SPARE = ("confidence", "source", "thinking", "cache_write", "cached_input", "now", "dated")
_TWINS = {"cache_write": "input", "thinking": "output"}  # shown where they differ
_STALE_MARK = "!"
_LISTED = ("model", "provider", "upstream_model", "when", "input_up_to", "output_up_to", *KINDS.values())


@click.command()
@click.option("--by", type=click.Choice(["day", "key", "model", "account"]), default="day", show_default=True)
@click.option("--since", type=Instant(ahead=False), help="From when on: 2026-01-31, 2026-01-31T18:00Z or 30d.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), help="[default: table]")
@json_option
@click.pass_obj
def usage(settings: Settings, by: str, since: str | None, form: str | None, as_json: bool) -> None:
    """What was used and charged, closed requests only."""
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"give --json or --format {form}, not both")
    rows = ask(settings, "usage", {"by": by, "since": since})
    if as_json or form == "json":
        print_json(rows)
    elif form == "csv":
        print_csv(rows, [by, *_USAGE])
    else:
        print_table(rows, {by: by, **_USAGE}, empty="Nothing was used in that time.")


@click.command()
@click.option("--prices", is_flag=True, help="Each price: source, date, what it costs us, whether it is in force now.")
@click.option("--all", "everything", is_flag=True, help="The same for the whole catalogue, and what is not served.")
@json_option
@click.pass_obj
def models(settings: Settings, prices: bool, everything: bool, as_json: bool) -> None:
    """The models that are served, and their prices.

    As the configuration says, per million tokens. Cache writes and thinking have a column where they cost something
    else than input and output. A price whose source is older than 90 days has a ! after the source's date.
    """
    config, now = settings.config_without_secrets(), Moment(now_ms() // 1000 * 1000)
    rows = served_rows(config, now.at_ms)
    schedules = {model.provider: model.tariff.schedule for model in config.models.values() if model.tariff.off_peak}
    if everything:
        catalogue = load_catalogue()
        rows += unserved_rows(config, catalogue, now.at_ms)
        schedules = {name: provider.schedule for name, provider in catalogue.providers.items()} | schedules
    if prices or everything:
        _show_prices(rows, schedules, now, as_json=as_json)
    else:
        _show_models(rows, config, schedules, as_json=as_json)


def _show_models(rows: list[Row], config: Config, schedules: Mapping[str, Schedule | None], *, as_json: bool) -> None:
    if as_json:
        listed = (*_LISTED, "currency", "price_id", "context", "max_output")
        print_json([{name: row[name] for name in listed} for row in rows])
        return
    if rows:
        print_line(f"Prices in {config.currency} per million tokens.")
    tiered = _tiered(rows)
    lines = [
        {
            **row,
            "when": _when(row, tiered),
            "context": _count(row["context"]),
            "max_output": _count(row["max_output"]),
        }
        for row in rows
    ]
    print_table(lines, _without_twins(lines, _MODELS), empty=_NO_MODELS, spare=_MODELS_SPARE)
    for line in _peak_hours(schedules):
        print_line(line)


def _show_prices(rows: list[Row], schedules: Mapping[str, Schedule | None], now: Moment, *, as_json: bool) -> None:
    mark = "stale"
    if as_json:
        print_json([{**row, "at": str(now)} for row in rows])
    else:
        if rows:
            print_line(f"Per million tokens; charge: what accounts pay, cost: what the provider bills; now: {now}.")
        tiered = _tiered(rows)
        sources = {text: str(number) for number, text in enumerate(_unique(row["source"] for row in rows), 1)}
        reasons = dict(zip(_unique(map(_reason, rows)), _letters(), strict=False))
        lines = [line for row in rows for line in _price_lines(row, tiered, sources, reasons)]
        columns = _without_twins(lines, _PRICES)
        shown = print_table(lines, columns, empty=_NO_MODELS, spare=_PRICES_SPARE, group="provider")
        mark = _STALE_MARK if "dated" in shown else ""
        if any(row["why_not"].startswith(NOT_ON) for row in rows):
            print_line(f"off: {NOT_ON}; such a line is what it bills")
        for reason, letter in reasons.items():
            print_line(f"{letter}: {reason}")
        for source, number in sources.items() if "source" in shown else ():
            print_line(f"source {number}: {source}")
        for line in _peak_hours(schedules):
            print_line(line)
    for warning in _warnings(rows, mark):
        print_line(warning, err=as_json)


_NO_MODELS = "No models: switch a provider on in the configuration."


def _price_lines(
    row: Row, tiered: set[tuple[str, str]], sources: Mapping[str, str], reasons: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Fold a row into a line for the charge and one for the cost, or one for both where they are the same.

    A row that is not served says so in their place.
    """
    shown = {
        **row,
        "when": _when(row, tiered),
        "now": "now" if row["in_force"] else None,
        "dated": f"{row['source_date']}{_STALE_MARK}" if row["stale"] else row["source_date"],
        "source": sources.get(row["source"]),
    }
    charge = {"currency": row["currency"], **{kind: row[kind] for kind in KINDS.values()}}
    cost = row["cost"] or dict.fromkeys(charge)
    if not row["served"]:
        off, letter = row["why_not"].startswith(NOT_ON), reasons.get(_reason(row), "")
        yield {**shown, **cost, "what": f"{'off' if off else 'not'} {letter}".rstrip()}
    elif charge == cost:
        yield {**shown, "what": "both"}
    else:
        yield {**shown, "what": "charge"}
        yield {**shown, **cost, "what": "cost"}


def _reason(row: Row) -> str:
    """Return why a row is not served, beside the usual reason."""
    why: str = row["why_not"]
    return why.removeprefix(NOT_ON).removeprefix("; ")


def _unique(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _letters() -> Iterator[str]:
    """Yield a, b, … z, aa, ab, …"""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


def _warnings(rows: list[Row], mark: str) -> Iterator[str]:
    """Say what is doubtful in the rows; `mark` is how a row says that it is stale, if it does."""
    prices = {(row["provider"], row["model"], row["cost"]["currency"]): row["stale"] for row in rows if row["cost"]}
    stale = sum(prices.values())
    if stale:
        be, marked = "is" if stale == 1 else "are", f" ({mark})" if mark else ""
        yield f"{stale} of {counted(len(prices), 'price')} {be} older than {STALE_DAYS} days{marked}: check the source."
    ended = {row["provider"]: row["calendar_ended"] for row in rows if row["calendar_ended"]}
    for provider, day in sorted(ended.items()):
        yield f"{provider}: its calendar of holidays ends on {day}; until it is extended, holidays cost the peak price."


def _without_twins(rows: list[Row], columns: Mapping[str, str]) -> dict[str, str]:
    """Leave out the kinds that cost everywhere what their twin costs."""
    same = {kind for kind, twin in _TWINS.items() if all(row[kind] == row[twin] for row in rows)}
    return {name: heading for name, heading in columns.items() if name not in same}


def _tiered(rows: list[Row]) -> set[tuple[str, str]]:
    """Return the models that have tiers, each with its provider."""
    bounded = (row for row in rows if row["input_up_to"] is not None or row["output_up_to"] is not None)
    return {(row["provider"], row["model"]) for row in bounded}


def _when(row: Row, tiered: set[tuple[str, str]]) -> str:
    """Write when a row holds: always, off-peak, in≤32K, above."""
    period = (row["when"] or "").replace("_", "-")
    bounds = {"in": row["input_up_to"], "out": row["output_up_to"]}
    limits = [f"{name}≤{_count(most)}" for name, most in bounds.items() if most is not None]
    if (row["provider"], row["model"]) in tiered:
        limits = limits or ["above"]
    return " ".join(limits if limits and period == "always" else [period, *limits])


def _count(tokens: int | None) -> str | None:
    """Write 384000 as 384K and 1000000 as 1M, and what is not so round in full."""
    if tokens is None or tokens < 10_000 or tokens % 1_000:
        return None if tokens is None else str(tokens)
    return f"{tokens // 1_000}K" if tokens % 1_000_000 else f"{tokens // 1_000_000}M"


def _peak_hours(schedules: Mapping[str, Schedule | None]) -> list[str]:
    """Tell when the peak prices of the providers hold that have such hours."""
    lines = []
    for provider, schedule in sorted(schedules.items()):
        if schedule is not None:
            hours = " and ".join(f"{_clock(start)}–{_clock(end)}" for start, end in schedule.peak)
            zone = f"UTC{'-' if schedule.offset_s < 0 else '+'}{_clock(abs(schedule.offset_s))}"
            lines.append(f"peak of {provider}: {hours} ({zone}) on its working days; off-peak: all other times")
    return lines


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}"
