"""The rows that `models` prints: one for each tier of each price.

Strategy: a row is flat and ready for JSON. What accounts pay stands in it under the kinds' own names, in the
deployment's currency; what the provider bills stands under `cost`, in its own. A row that is not served has only a
cost, and says why. The words of a row are those of a price list. Nothing here prints or looks at a clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final

from nexus_proxy.catalogue import Catalogue, Provider
from nexus_proxy.catalogue.dates import EPOCH_DAY, day_number, known_until, stale_days
from nexus_proxy.config import Config
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.core.money.pricelist import KINDS as LISTED_KINDS
from nexus_proxy.core.money.pricelist import build_tariff
from nexus_proxy.core.money.prices import DAY_S, Price, PriceVersion, Rates, Schedule, Tariff, Tier

STALE_DAYS: Final = 90  # an older source is marked: prices of this trade change several times a year
KINDS: Final = dict(  # a field of `Rates` → what price lists call it, as the JSON of every verb does
    zip((field.name for field in fields(Rates)), LISTED_KINDS, strict=True)
)
NOT_ON: Final = "the provider is not switched on"

Row = dict[str, Any]


def served_rows(config: Config, at_ms: int) -> list[Row]:
    """Return every price that is served, in the order of the models' ids."""
    versions = {version.price.price_id: version for version in config.prices}
    return [row for _, model in sorted(config.models.items()) for row in _model_rows(model, config, versions, at_ms)]


def unserved_rows(config: Config, catalogue: Catalogue, at_ms: int) -> list[Row]:
    """Return every price of the catalogue that is not served, with the reason, in the catalogue's order."""
    judge = _Judge(config)
    return [
        row
        for provider in catalogue.providers.values()
        for public_id, upstream in provider.public_ids.items()
        for currency in provider.listings[upstream].prices or ("",)
        if (why := judge.why_not(provider, public_id, currency))
        for row in _listing_rows(provider, public_id, currency, why, at_ms)
    ]


def why_unserved(config: Config, catalogue: Catalogue, public_id: str) -> dict[str, str]:
    """Return the providers of the catalogue that have a model which is not served, each with the reason."""
    judge = _Judge(config)
    return {
        provider.name: judge.why_not(provider, public_id, judge.billed(provider, public_id))
        for provider in catalogue.providers.values()
        if public_id in provider.public_ids
    }


def period_of(tariff: Tariff, price: Price) -> str:
    """Return when a price of a tariff holds: always, peak or off_peak."""
    if tariff.off_peak is None:
        return "always"
    return "off_peak" if price is tariff.off_peak else "peak"


def about(source: Mapping[str, Any], at_ms: int) -> Row:
    """Tell where a price comes from and how old that is. A price of the configuration has no date."""
    dated = source.get("source_date")
    age_days = None if dated is None else stale_days(dated, EPOCH_DAY + timedelta(milliseconds=at_ms))
    return {
        "source": source.get("source"),
        "source_date": dated,
        "age_days": age_days,
        "stale": age_days is not None and age_days > STALE_DAYS,
        "confidence": source.get("confidence"),
        "notes": source.get("notes", ""),
    }


def calendar_ends(schedule: Schedule | None, at_ms: int) -> str | None:
    """Return the last day that a schedule's calendar knows if the instant is after it; None where all is known."""
    last = None if schedule is None else known_until(schedule)
    if schedule is None or last is None:
        return None
    day = (at_ms // 1000 + schedule.offset_s) // DAY_S
    return last.isoformat() if day > day_number(last) else None


def amounts(rates: Rates) -> dict[str, str]:
    """Write rates as decimals per million tokens."""
    return {name: rate_text(getattr(rates, kind)) for kind, name in KINDS.items()}


def rate_text(rate: int) -> str:
    """Write a rate (micro-units per million tokens) as a decimal per million tokens."""
    return format_nano(rate * 1_000)


def _model_rows(model: Model, config: Config, versions: Mapping[str, PriceVersion], at_ms: int) -> Iterator[Row]:
    sold: Row = {"currency": config.currency, "context": model.context, "max_output": model.max_output}
    names = (model.id, model.provider, model.upstream)
    for price in model.tariff.prices():
        source = versions[price.price_id].source
        for tier, cost_tier in zip(price.tiers, price.cost_tiers, strict=True):
            row = _tier_row(names, model.tariff, price, cost_tier, source, at_ms)
            yield {**row, **amounts(tier.rates), **sold, "price_id": price.price_id, "served": True}


def _listing_rows(provider: Provider, public_id: str, currency: str, why: str, at_ms: int) -> Iterator[Row]:
    upstream = provider.public_ids[public_id]
    listing = provider.listings[upstream]
    lengths = {"context": listing.facts.get("context"), "max_output": listing.facts.get("max_output")}
    if not currency:
        yield {**_blank(public_id, provider.name, upstream), **about({}, at_ms), **lengths, "why_not": why}
        return
    tariff, versions = build_tariff(
        listing.prices[currency],
        model=public_id,
        provider=provider.name,
        currency=currency,
        fx="1",
        markup="1",
        schedule=provider.schedule,
    )
    for version in versions:
        for tier in version.price.cost_tiers:
            names = (public_id, provider.name, upstream)
            row = _tier_row(names, tariff, version.price, tier, version.source, at_ms)
            yield {**row, **lengths, "fx": None, "markup": None, "why_not": why}


def _blank(model: str, provider: str, upstream: str) -> Row:
    """Return a row with every key of a row, and only the names filled in."""
    names = {"model": model, "provider": provider, "upstream_model": upstream}
    tier = dict.fromkeys(("when", "in_force", "input_up_to", "output_up_to", *KINDS.values(), "currency", "price_id"))
    rest = dict.fromkeys(("context", "max_output", "cost", "fx", "markup", "calendar_ended"))
    return {**names, **tier, **rest, "served": False, "why_not": ""}


def _tier_row(
    names: tuple[str, str, str], tariff: Tariff, price: Price, tier: Tier, source: Mapping[str, Any], at_ms: int
) -> Row:
    return {
        **_blank(*names),
        "when": period_of(tariff, price),
        "in_force": price is tariff.price_at(at_ms),
        "input_up_to": tier.input_max,
        "output_up_to": tier.output_max,
        "cost": {"currency": price.cost_currency, **amounts(tier.rates)},
        "fx": source.get("fx"),
        "markup": source.get("markup"),
        "calendar_ended": calendar_ends(tariff.schedule, at_ms),
        **about(source, at_ms),
    }


class _Judge:
    """Tells why a row of the catalogue is not served, as far as the configuration shows it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._own = {v.model for v in config.prices if v.source.get("source") == "configuration"}
        self._billed = {  # provider → the currency of the catalogue's prices that it is served at
            model.provider: model.tariff.peak.cost_currency
            for model in config.models.values()
            if model.id not in self._own
        }

    def billed(self, provider: Provider, public_id: str) -> str:
        """Return the currency that the provider bills here, or else one that the model has a price in; or nothing."""
        prices = provider.listings[provider.public_ids[public_id]].prices
        return self._billed.get(provider.name) or next(iter(prices), "")

    def why_not(self, provider: Provider, public_id: str, currency: str) -> str:
        """Return the reason, or nothing if the row is served. The empty currency is a model without a price."""
        model = self._config.models.get(public_id)
        disabled = provider.listings[provider.public_ids[public_id]].disabled
        billed = self._billed.get(provider.name, currency)
        if model is not None and model.provider == provider.name:
            if model.id in self._own:
                return "the configuration has its own price"
            return "" if currency == billed else f"the provider bills in {billed}"
        if provider.name not in self._config.providers:
            why = NOT_ON
        elif not currency:
            why = "no known price; the configuration can give one"
        elif model is not None:
            why = f"{model.provider} serves it"
        elif disabled:
            return disabled
        else:
            why = "switched off in the configuration" if currency == billed else f"the provider bills in {billed}"
        return f"{why}; {disabled}" if disabled else why
