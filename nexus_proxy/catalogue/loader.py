"""Join the tables of the catalogue into frozen types."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import resources
from typing import Any

import orjson

from nexus_proxy.core.dialect import Dialect, ErrorRule
from nexus_proxy.core.pricelist import KINDS, ListPrice
from nexus_proxy.core.pricing import Schedule

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_PRICE_KEYS = {*KINDS, "tiers", "off_peak"}
_ABOUT_KEYS = {"source", "source_date", "confidence", "notes"}
_MODEL_WORDS = {"provider", "upstream", "notes", "disabled"}


@dataclass(frozen=True, slots=True)
class Listing:
    """One model of one provider. `facts` are fields of `core.model.Model`; `disabled` says why it is not served unless
    the configuration names it."""

    upstream: str
    facts: Mapping[str, Any]
    prices: Mapping[str, ListPrice]  # by currency
    disabled: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider that is known."""

    name: str
    base_url: str
    dialect: Dialect
    schedule: Schedule | None
    listings: Mapping[str, Listing]  # by the provider's own id
    public_ids: Mapping[str, str]  # what clients ask for → the provider's own id

    @property
    def currencies(self) -> frozenset[str]:
        """The currencies that the provider has prices in."""
        return frozenset(currency for listing in self.listings.values() for currency in listing.prices)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is known."""

    dialects: Mapping[str, Dialect]
    providers: Mapping[str, Provider]


def load_catalogue() -> Catalogue:
    """Read the package data. A fault in it is our own bug, so whatever it raises is not caught."""
    dialects = {name: _dialect(name, raw) for name, raw in _read("dialects.json").items()}
    calendars = _read("holidays.json")
    aliases = _read("public_ids.json")
    listings = _listings(_read("models.json"), _read("prices.json"))
    providers = {}
    for name, raw in _read("providers.json").items():
        own = listings.get(name, {})
        schedule = _schedule(raw["schedule"], calendars) if "schedule" in raw else None
        # A name in the table of public ids goes before the same name as a provider's own id.
        public = {upstream: upstream for upstream in own} | {i: by[name] for i, by in aliases.items() if name in by}
        providers[name] = Provider(name, raw["base_url"], dialects[raw["dialect"]], schedule, own, public)
    return Catalogue(dialects, providers)


def _read(name: str) -> Any:
    return orjson.loads(resources.files("nexus_proxy.catalogue").joinpath(name).read_bytes())


def _dialect(name: str, raw: Mapping[str, Any]) -> Dialect:
    rules = tuple(
        ErrorRule(
            rule["code"], frozenset(rule.get("statuses", ())), frozenset(rule.get("marks", ())), rule.get("text", "")
        )
        for rule in raw["errors"]
    )
    return Dialect(name, raw["ask_usage"], raw.get("usage_in_choice", False), rules)


def _listings(models: list[dict[str, Any]], prices: list[dict[str, Any]]) -> dict[str, dict[str, Listing]]:
    lists: dict[tuple[str, str], dict[str, ListPrice]] = {}
    dates: dict[tuple[str, str], str] = {}
    for row in prices:
        key = (row["provider"], row["upstream"])
        listed = {name: value for name, value in row.items() if name in _PRICE_KEYS}
        about = {name: value for name, value in row.items() if name in _ABOUT_KEYS}
        lists.setdefault(key, {})[row["currency"]] = ListPrice(row["currency"], listed, about)
        dates.setdefault(key, row["source_date"])
    by_provider: dict[str, dict[str, Listing]] = {}
    for entry in models:
        key = (entry["provider"], entry["upstream"])
        facts = {name: value for name, value in entry.items() if name not in _MODEL_WORDS}
        facts["created"] = _unix(dates[key])
        listing = Listing(entry["upstream"], facts, lists[key], entry.get("disabled", ""))
        by_provider.setdefault(entry["provider"], {})[entry["upstream"]] = listing
    return by_provider


def _schedule(raw: Mapping[str, Any], calendars: Mapping[str, Any]) -> Schedule:
    calendar = calendars[raw["calendar"]]
    holidays = frozenset(
        day for first, last in calendar["holidays"] for day in range(_day_number(first), _day_number(last) + 1)
    )
    peak = tuple((_second(start), _second(end)) for start, end in raw["peak"])
    return Schedule(raw["offset_s"], peak, holidays, frozenset(map(_day_number, calendar["working_days"])))


def _day_number(text: str) -> int:
    return date.fromisoformat(text).toordinal() - _EPOCH_DAY


def _second(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _unix(text: str) -> int:
    """Seconds since 1970 of a day, a month or a year (`2026-11-15`, `2026-10`, `2026`)."""
    year, month, day = (*map(int, text.split("-")), 1, 1)[:3]
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())
