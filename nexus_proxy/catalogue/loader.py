"""Join the tables of the catalogue into frozen types."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Any

import orjson

from nexus_proxy.catalogue.dates import day_number, first_day
from nexus_proxy.core.money.pricelist import KINDS, ListPrice
from nexus_proxy.core.money.prices import DAY_S, Schedule
from nexus_proxy.core.wire.dialect import Dialect, ErrorRule, Failure, plain
from nexus_proxy.core.wire.usage import Path, UsageShape

_PRICE_KEYS = {*KINDS, "tiers", "off_peak"}
_ABOUT_KEYS = {"source", "source_date", "confidence", "notes"}
_MODEL_WORDS = {"provider", "upstream", "notes", "disabled"}
_WITHHELD = "withheld"  # in a row of the prices: why nothing may be charged by it


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
    currency: str = ""  # what it bills in, where no price of it is known
    title: str = ""  # as people call it
    notes: str = ""

    @property
    def currencies(self) -> frozenset[str]:
        """The currencies that the provider has prices in."""
        priced = {currency for listing in self.listings.values() for currency in listing.prices}
        return frozenset(priced | ({self.currency} - {""}))


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days on which a schedule's week is not the usual one: day numbers since 1970-01-01."""

    holidays: frozenset[int]
    working_days: frozenset[int]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is known."""

    dialects: Mapping[str, Dialect]
    providers: Mapping[str, Provider]
    calendars: Mapping[str, Calendar]


def load_catalogue() -> Catalogue:
    """Read the package data. A fault in it is our own bug, so whatever it raises is not caught."""
    dialects = {name: make_dialect(name, raw) for name, raw in _read("dialects.json").items()}
    calendars = {
        name: make_calendar(raw["holidays"], raw["working_days"]) for name, raw in _read("holidays.json").items()
    }
    aliases = _read("public_ids.json")
    listings = _listings(_read("models.json"), _read("prices.json"))
    providers = {}
    for name, raw in _read("providers.json").items():
        own = listings.get(name, {})
        schedule = None
        if "schedule" in raw:
            times = raw["schedule"]
            schedule = make_schedule(times["offset_s"], times["peak"], calendars[times["calendar"]])
        # A name in the table of public ids goes before the same name as a provider's own id.
        public = {upstream: upstream for upstream in own} | {i: by[name] for i, by in aliases.items() if name in by}
        providers[name] = Provider(
            name,
            raw["base_url"],
            dialects[raw["dialect"]],
            schedule,
            own,
            public,
            raw.get("currency", ""),
            raw.get("title", name),
            raw.get("notes", ""),
        )
    return Catalogue(dialects, providers, calendars)


def _read(name: str) -> Any:
    return orjson.loads(resources.files("nexus_proxy.catalogue").joinpath(name).read_bytes())


def make_dialect(name: str, raw: Mapping[str, Any], base: Dialect | None = None) -> Dialect:
    """Return a dialect from its entry. What it lists goes before what `base` lists; what else it says, over it."""

    def said(key: str, otherwise: Any) -> Any:
        value = raw.get(key)
        return otherwise if value is None else value

    base = base or Dialect(name, ask_usage=True)
    return Dialect(
        name,
        ask_usage=said("ask_usage", base.ask_usage),
        usage=_usage_shape(said("usage", {}), base.usage),
        reasoning=frozenset(said("reasoning", ())) | base.reasoning,
        failure=(*map(_failure, said("failure", ())), *base.failure),
        errors=(*map(_error_rule, said("errors", ())), *base.errors),
        limit_parameter=said("limit_parameter", base.limit_parameter),
        limit_covers_thinking=said("limit_covers_thinking", base.limit_covers_thinking),
        budget_parameter=said("budget_parameter", base.budget_parameter),
        refused_parameters=frozenset(said("refused_parameters", ())) | base.refused_parameters,
        renamed_parameters=tuple({**dict(base.renamed_parameters), **said("renamed_parameters", {})}.items()),
        certainty=said("certainty", base.certainty),
        matters=said("matters", base.matters),
        notes=said("notes", base.notes),
    )


def _usage_shape(raw: Mapping[str, Any], base: UsageShape) -> UsageShape:
    def paths(kind: str) -> tuple[Path, ...]:
        own: tuple[Path, ...] = getattr(base, kind)
        return (*(tuple(text.split(".")) for text in raw.get(kind) or ()), *own)

    in_choice = raw.get("in_choice")
    return UsageShape(
        base.in_choice if in_choice is None else in_choice,
        paths("at"),
        prompt=paths("prompt"),
        completion=paths("completion"),
        cached=paths("cached"),
        cache_write=paths("cache_write"),
        reasoning=paths("reasoning"),
        total=paths("total"),
    )


def _failure(raw: Mapping[str, Any]) -> Failure:
    return Failure(tuple(raw["path"].split(".")), frozenset(map(plain, raw.get("ok") or ())))


def _error_rule(raw: Mapping[str, Any]) -> ErrorRule:
    statuses, marks = frozenset(raw.get("statuses") or ()), frozenset(map(plain, raw.get("marks") or ()))
    return ErrorRule(raw["code"], statuses, marks, (raw.get("text") or "").casefold())


def _listings(models: list[dict[str, Any]], prices: list[dict[str, Any]]) -> dict[str, dict[str, Listing]]:
    lists: dict[tuple[str, str], dict[str, ListPrice]] = {}
    dates: dict[tuple[str, str], str] = {}
    withheld: dict[tuple[str, str], str] = {}
    for row in prices:
        key = (row["provider"], row["upstream"])
        dates.setdefault(key, row["source_date"])
        if _WITHHELD in row:
            withheld[key] = row[_WITHHELD]
            continue
        listed = {name: value for name, value in row.items() if name in _PRICE_KEYS}
        about = {name: value for name, value in row.items() if name in _ABOUT_KEYS}
        lists.setdefault(key, {})[row["currency"]] = ListPrice(row["currency"], listed, about)
    by_provider: dict[str, dict[str, Listing]] = {}
    for entry in models:
        key = (entry["provider"], entry["upstream"])
        facts = {name: value for name, value in entry.items() if name not in _MODEL_WORDS}
        facts["created"] = day_number(first_day(dates[key])) * DAY_S
        priced = lists.get(key, {})
        disabled = entry.get("disabled") or ("" if priced else withheld[key])
        listing = Listing(entry["upstream"], facts, priced, disabled)
        by_provider.setdefault(entry["provider"], {})[entry["upstream"]] = listing
    return by_provider


def make_calendar(holidays: Iterable[Sequence[str]], working_days: Iterable[str]) -> Calendar:
    """Return a calendar from first and last days of holidays and single working days, all ISO dates. ValueError."""
    days = (range(_day_number(first), _day_number(last) + 1) for first, last in holidays)
    return Calendar(frozenset(itertools.chain.from_iterable(days)), frozenset(map(_day_number, working_days)))


def make_schedule(offset_s: int, peak: Iterable[Sequence[str]], calendar: Calendar) -> Schedule:
    """Return a schedule; `peak` are times of the day, from and until, such as `09:00` and `24:00`."""
    windows = tuple((_second(start), _second(end)) for start, end in peak)
    return Schedule(offset_s, windows, calendar.holidays, calendar.working_days)


def _day_number(text: str) -> int:
    return day_number(date.fromisoformat(text))


def _second(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 3600 + int(minutes) * 60
