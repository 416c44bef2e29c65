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
    "input_up_to": "input up to",
    "input": "input",
    "cached_input": "cached",
    "output": "output",
    "thinking_output": "thinking",
    "context": "context",
    "max_output": "max output",
}


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
    """The models that the configuration serves, and their sale prices per million tokens."""
    config = settings.config_without_secrets()
    rows = [row for _, model in sorted(config.models.items()) for row in _model_rows(model, config.currency)]
    if as_json:
        print_json(rows)
        return
    if rows:
        click.echo(f"Prices in {config.currency} per million tokens.")
    print_table(rows, _MODELS, empty="No models: switch a provider on in the configuration.")


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


def _rate(micro: int) -> str:
    """Write micro-units per million tokens as a decimal."""
    return format_nano(micro * 1_000)
