"""The verb that computes a charge beforehand, with its arithmetic.

Strategy: the price is found and the sum is made by the functions that charge; what is here only asks and prints. It
works from the configuration alone: no server, no ledger, no secret.
"""

import difflib
from collections.abc import Iterator
from typing import Any

import click

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.cli.arguments import At, Moment, Tokens, json_option
from nexus_proxy.cli.prices import KINDS, STALE_DAYS, about, calendar_ends, period_of, rate_text, why_unserved
from nexus_proxy.cli.printing import print_json, print_line, print_record, print_table
from nexus_proxy.cli.settings import Settings
from nexus_proxy.config import Config
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.amounts import PICO_PER_NANO, format_nano, parse_nano
from nexus_proxy.core.money.prices import Price, Tier, bound_nano, itemize
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import ModelNotFound, Refused
from nexus_proxy.runtime.clock import now_ms

_TOKENS = Tokens()
_RECORD = ("model", "provider", "at", "price", "period", "tier", "source")
_LINES = {"kind": "kind of token", "tokens": "tokens", "rate": "per million", "amount": "amount", "currency": ""}
_SHOWN = {"cached_input": "cached input", "cache_write": "cache write", "thinking": "output with thinking"}


@click.command()
@click.argument("model_id", metavar="MODEL")
@click.option("--input", "prompt", type=_TOKENS, required=True, help="Tokens of the prompt, all of them.")
@click.option("--output", "completion", type=_TOKENS, required=True, help="Tokens of the answer, all of them.")
@click.option("--cached", type=_TOKENS, default=0, help="Of the input: read from the provider's cache.")
@click.option("--cache-write", type=_TOKENS, default=0, help="Of the input: written to the provider's cache.")
@click.option("--reasoning", type=_TOKENS, default=0, help="Of the output: thinking.")
@click.option("--at", "moment", type=At(), help="When it is asked, ISO 8601; UTC without an offset. Default: now.")
@json_option
@click.pass_obj
def quote(
    settings: Settings,
    model_id: str,
    prompt: int,
    completion: int,
    cached: int,
    cache_write: int,
    reasoning: int,
    moment: Moment | None,
    as_json: bool,
) -> None:
    """What a request to MODEL would be charged.

    With every step of the arithmetic, at the prices that the configuration has now.
    """
    if cached + cache_write > prompt:
        raise click.UsageError("--cached and --cache-write are parts of --input, and together more than it")
    if reasoning > completion:
        raise click.UsageError("--reasoning is a part of --output, and more than it")
    config = settings.config_without_secrets()
    usage = Usage(prompt, completion, cached, cache_write, reasoning)
    found = _quote(config, _find(config, model_id), usage, moment or Moment(now_ms() // 1000 * 1000))
    if as_json:
        print_json(found)
    else:
        _show(found)


def _find(config: Config, model_id: str) -> Model:
    try:
        return config.find_model(None, model_id)
    except ModelNotFound:
        known = why_unserved(config, load_catalogue(), model_id)
        if known:
            reasons = "; ".join(f"{provider} has it, but {why}" for provider, why in known.items())
            raise Refused(f"no model {model_id!r} is served: {reasons}") from None
        near = difflib.get_close_matches(model_id, config.models, n=1)
        hint = f"did you mean {near[0]}?" if near else "`nexus-proxy models` shows what is"
        raise Refused(f"no model {model_id!r} is served; {hint}") from None


def _quote(config: Config, model: Model, usage: Usage, moment: Moment) -> dict[str, Any]:
    price = model.tariff.price_at(moment.at_ms)
    version = next(version for version in config.prices if version.price.price_id == price.price_id)
    source = {key: version.source.get(key) for key in ("currency", "fx", "markup")}
    found = {
        "model": model.id,
        "provider": model.provider,
        "upstream_model": model.upstream,
        "at": str(moment),
        "price_id": price.price_id,
        "period": period_of(model.tariff, price),
        "tier": _tier(price, usage),
        "usage": {
            "prompt_tokens": usage.prompt,
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "completion_tokens": usage.completion,
            "reasoning_tokens": usage.reasoning,
        },
        "charge": _itemized(price.tiers, usage, config.currency),
        "cost": _itemized(price.cost_tiers, usage, price.cost_currency),
        "hold_at_most": _hold(model, price, usage, config.currency),
        "source": {**about(version.source, now_ms()), **source},
    }
    return {**found, "notes": list(_notes(model, usage, moment, found))}


def _itemized(tiers: tuple[Tier, ...], usage: Usage, currency: str) -> dict[str, Any]:
    made = itemize(tiers, usage)
    lines = [
        {"kind": KINDS[line.kind], "tokens": line.tokens, "rate": rate_text(line.rate), "amount": _pico(line.pico)}
        for line in made.lines
    ]
    rounding = made.nano * PICO_PER_NANO - made.pico
    return {
        "currency": currency,
        "lines": lines,
        "sum": _pico(made.pico),
        "rounding": _pico(rounding),
        "amount": format_nano(made.nano),
    }


def _tier(price: Price, usage: Usage) -> dict[str, Any]:
    made = itemize(price.tiers, usage)
    return {
        "number": made.tier_index + 1,
        "of": len(price.tiers),
        "input_up_to": made.tier.input_max,
        "output_up_to": made.tier.output_max,
    }


def _hold(model: Model, price: Price, usage: Usage, currency: str) -> dict[str, Any]:
    """Return what is set aside at most: for a prompt of any bytes, and the limit that the request sends, or must send
    for such an answer."""
    beside = 0 if model.limit_covers_thinking else max(model.thinking_max, usage.reasoning)
    written = usage.completion if model.limit_covers_thinking else usage.completion - usage.reasoning
    limit = max(model.default_output, written)
    input_bound = max(model.context, usage.prompt)
    nano = bound_nano(price.tiers, input_bound, limit + beside)
    return {
        "currency": currency,
        "amount": format_nano(nano),
        "input_up_to": input_bound,
        "output_limit": limit,
        "thinking_beside_it": beside,
    }


def _notes(model: Model, usage: Usage, moment: Moment, found: dict[str, Any]) -> Iterator[str]:
    """Say what was assumed, and what is doubtful."""
    if moment.assumed_utc:
        yield "the time was given without an offset and taken as UTC"
    if usage.prompt > model.context:
        yield f"the model takes at most {model.context} tokens of input"
    longest = model.max_output + (0 if model.limit_covers_thinking else model.thinking_max)
    if usage.completion > longest:
        yield f"one answer of the model has at most {longest} tokens"
    if found["source"]["stale"]:
        yield f"the price's source is older than {STALE_DAYS} days"
    ended = calendar_ends(model.tariff.schedule, moment.at_ms)
    if ended is not None:
        yield f"the provider's calendar of holidays ends on {ended}; later holidays are taken for working days"
    if found["source"]["notes"]:
        yield f"of the price: {found['source']['notes']}"


def _show(found: dict[str, Any]) -> None:
    source, hold, charge, cost = (found[name] for name in ("source", "hold_at_most", "charge", "cost"))
    tier = found["tier"]
    bounds = {"input": tier["input_up_to"], "output": tier["output_up_to"]}
    limits = " and ".join(f"{name} up to {most}" for name, most in bounds.items() if most is not None)
    if tier["of"] > 1 and not limits:
        limits = "above the others"
    made = f"list price in {source['currency']} × fx {source['fx']} × markup {source['markup']}"
    record = {
        "model": found["model"],
        "provider": f"{found['provider']}, as {found['upstream_model']}",
        "at": found["at"],
        "price": f"{found['price_id']}: {made}",
        "period": found["period"].replace("_", "-"),
        "tier": f"{tier['number']} of {tier['of']}" + (f", {limits}" if limits else ""),
        "source": ", ".join(part for part in (source["source"], source["source_date"], source["confidence"]) if part),
    }
    print_record(record, _RECORD)
    for name, itemized in (("charge", charge), ("cost", cost)):
        if itemized is charge or itemized != charge:  # where the provider bills the same, once is enough
            click.echo()
            _show_sum(name, itemized)
    click.echo()
    beside = f" and {hold['thinking_beside_it']} of thinking" if hold["thinking_beside_it"] else ""
    bound = f"input up to {hold['input_up_to']} tokens, one answer up to {hold['output_limit']}{beside}"
    print_line(f"Charge {charge['amount']} {charge['currency']}, cost {cost['amount']} {cost['currency']}.")
    print_line(f"Held beforehand, at most: {hold['amount']} {hold['currency']} ({bound}).")
    for note in found["notes"]:
        print_line(f"Note: {note}.")


def _show_sum(name: str, itemized: dict[str, Any]) -> None:
    blank = {"tokens": None, "rate": None, "currency": itemized["currency"]}
    rows = [
        {**line, "kind": _SHOWN.get(line["kind"], line["kind"]), "currency": itemized["currency"]}
        for line in itemized["lines"]
    ]
    rows.append({**blank, "kind": "sum", "amount": itemized["sum"]})
    if itemized["rounding"] != _pico(0):
        rows.append({**blank, "kind": "rounded up by", "amount": itemized["rounding"]})
    rows.append({**blank, "kind": name, "amount": _pico(parse_nano(itemized["amount"]) * PICO_PER_NANO)})
    print_table(rows, _LINES, empty="")


def _pico(pico: int) -> str:
    """Write an amount in pico-units as a decimal, all of its 12 places."""
    whole, rest = divmod(pico, 10**12)
    return f"{whole}.{rest:012}"
