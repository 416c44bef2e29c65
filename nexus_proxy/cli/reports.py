"""The verbs that only tell: usage, models."""

from typing import Any

import click

from nexus_proxy.cli.arguments import Instant, json_option
from nexus_proxy.cli.printing import print_csv, print_json, print_table
from nexus_proxy.cli.reach import ask
from nexus_proxy.cli.settings import Settings
from nexus_proxy.core.model import Model
from nexus_proxy.core.money import format_nano
from nexus_proxy.core.pricing import Price

_USAGE = {
    "requests": "requests",
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "completion_tokens": "completion",
    "reasoning_tokens": "reasoning",
    "charge": "charge",
    "currency": "",
}
_MODELS = {
    "model": "model",
    "provider": "provider",
    "upstream_model": "provider's id",
    "when": "when",
    "price": "in/cached/out/thinking",
    "context": "context",
    "max_output": "max out",
}
_SPARE = ("upstream_model", "provider", "max_output", "context")


@click.command()
@click.option("--by", type=click.Choice(["day", "key", "model", "account"]), default="day", show_default=True)
@click.option("--since", type=Instant(ahead=False), help="From when on: 2026-01-31, 2026-01-31T18:00Z or 30d.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@json_option
@click.pass_obj
def usage(settings: Settings, by: str, since: str | None, form: str, as_json: bool) -> None:
    """What was used and charged, closed requests only."""
    rows = ask(settings, "usage", {"by": by, "since": since})
    if as_json or form == "json":
        print_json(rows)
    elif form == "csv":
        print_csv(rows, [by, *_USAGE])
    else:
        print_table(rows, {by: by, **_USAGE}, empty="Nothing was used in that time.")


@click.command()
@json_option
@click.pass_obj
def models(settings: Settings, as_json: bool) -> None:
    """The models that are served, and their sale prices.

    As the configuration says, per million tokens.
    """
    config = settings.config_without_secrets()
    rows = [row for _, model in sorted(config.models.items()) for row in _model_rows(model, config.currency)]
    if as_json:
        print_json(rows)
        return
    if rows:
        click.echo(f"Prices in {config.currency} per million tokens.")
    empty = "No models: switch a provider on in the configuration."
    tiered = {row["model"] for row in rows if row["input_up_to"] is not None or row["output_up_to"] is not None}
    print_table([_brief(row, row["model"] in tiered) for row in rows], _MODELS, empty=empty, spare=_SPARE)
    for note in sorted({_peak_hours(model) for model in config.models.values()} - {""}):
        click.echo(note)


def _model_rows(model: Model, currency: str) -> list[dict[str, Any]]:
    """Return a row for each tier of each price."""
    periods: list[tuple[str, Price]] = [("always", model.tariff.peak)]
    if model.tariff.off_peak is not None:
        periods = [("peak", model.tariff.peak), ("off-peak", model.tariff.off_peak)]
    return [
        {
            "model": model.id,
            "provider": model.provider,
            "upstream_model": model.upstream,
            "when": when,
            "input_up_to": tier.input_max,
            "output_up_to": tier.output_max,
            "input": _rate(tier.rates.input),
            "cached_input": _rate(tier.rates.cached),
            "cache_write": _rate(tier.rates.cache_write),
            "output": _rate(tier.rates.output),
            "thinking_output": _rate(tier.rates.thinking),
            "currency": currency,
            "price_id": price.price_id,
            "context": model.context,
            "max_output": model.max_output,
        }
        for when, price in periods
        for tier in price.tiers
    ]


def _brief(row: dict[str, Any], tiered: bool) -> dict[str, Any]:
    """Fold a row into what fits on a line of a terminal."""
    bounds = {"in": row["input_up_to"], "out": row["output_up_to"]}
    limits = [f"{name}≤{_count(most, exact=True)}" for name, most in bounds.items() if most is not None]
    if tiered:
        limits = limits or ["above"]
    prices = [row[kind] for kind in ("input", "cached_input", "output", "thinking_output")]
    return {
        **row,
        "when": " ".join(limits if limits and row["when"] == "always" else [row["when"], *limits]),
        "price": "/".join(prices if row["thinking_output"] != row["output"] else prices[:3]),
        "context": _count(row["context"]),
        "max_output": _count(row["max_output"]),
    }


def _count(tokens: int, *, exact: bool = False) -> str:
    """Write 131072 as 131K and 1000000 as 1M; if `exact`, only where nothing is lost."""
    if tokens < 10_000 or (exact and tokens % 1_000):
        return str(tokens)
    return f"{tokens / 1_000_000:.3g}M" if tokens >= 1_000_000 and not exact else f"{tokens / 1_000:.0f}K"


def _peak_hours(model: Model) -> str:
    """Tell when the peak price of a model's provider holds; nothing if it has no hours."""
    schedule = model.tariff.schedule
    if schedule is None or model.tariff.off_peak is None:
        return ""
    hours = " and ".join(f"{_clock(start)}–{_clock(end)}" for start, end in schedule.peak)
    zone = f"UTC{'-' if schedule.offset_s < 0 else '+'}{_clock(abs(schedule.offset_s))}"
    return f"peak of {model.provider}: {hours} ({zone}) on its working days; off-peak: all other times"


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}"


def _rate(micro: int) -> str:
    """Write micro-units per million tokens as a decimal."""
    return format_nano(micro * 1_000)
