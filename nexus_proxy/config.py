"""The configuration file, read once into frozen types.

Strategy: the file's shape is checked as a whole and every mistake is named by its path; what comes out is resolved
(catalogue merged, prices converted, secrets read) and never changes.
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from nexus_proxy import config_file
from nexus_proxy.catalogue import Catalogue, Listing, load_catalogue
from nexus_proxy.catalogue.loader import make_calendar, make_dialect, make_schedule
from nexus_proxy.config_file import File, Mistakes
from nexus_proxy.core.control.addresses import check_base_url
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.amounts import parse_nano
from nexus_proxy.core.money.plans import Plan
from nexus_proxy.core.money.pricelist import TOKENS_MAX, ListPrice, build_tariff
from nexus_proxy.core.money.prices import PriceVersion, Schedule, Tariff
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.errors import ConfigError, ModelNotFound

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DEFAULT_OUTPUT = 4096  # tokens, where the model's entry declares no larger one


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    silence_s: float = 120.0
    exchange_s: float = 3600.0
    client_headers_s: float = 10.0
    client_body_s: float = 30.0
    client_idle_s: float = 75.0
    client_stalled_s: float = 60.0
    commit_s: float = 1.0
    shutdown_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process takes on at most."""

    body_bytes: int = 10 * 1024 * 1024
    bodies_bytes: int = 256 * 1024 * 1024  # of all request bodies being read or forwarded
    answer_bytes: int = 1024 * 1024 * 1024  # of one answer
    drain_s: float = 60.0
    drain_bytes: int = 1024 * 1024
    drains: int = 256


@dataclass(frozen=True, slots=True)
class Server:
    """The listeners."""

    listen: Address
    admin_listen: Address
    timeouts: Timeouts
    limits: Limits


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that is switched on."""

    name: str
    base_url: str  # no trailing slash; the chat path is appended
    api_key: str = field(repr=False)  # secret: never in a log or an answer; empty where the server wants none
    dialect: Dialect
    allow_private: bool
    on_disconnect: Literal["drain", "cancel"]
    in_flight_max: int
    retry_stale: bool  # one more try if a reused connection turns out dead before any byte of the response
    ca_file: Path | None  # PEM of extra authorities; None trusts the system's


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a server needs to know before it starts."""

    server: Server
    ledger_path: Path
    currency: str
    plans: Mapping[str, Plan]
    providers: Mapping[str, Provider]
    models: Mapping[str, Model]
    prices: tuple[PriceVersion, ...]

    def find_model(self, allowed: Container[str] | None, model_id: str) -> Model:
        """Return a model; `allowed` are the ids that the key may use, None for all of them. ModelNotFound."""
        model = self.models.get(model_id)
        if model is None or (allowed is not None and model_id not in allowed):
            raise ModelNotFound("No such model, or this key may not use it. GET /v1/models lists them.", param="model")
        return model


class WrongConfig(ConfigError):
    """The configuration has these mistakes: each a path, empty for the file as a whole, and what was expected."""

    def __init__(self, mistakes: list[tuple[str, str]], file: Path | None = None) -> None:
        lines = [f"{path}: {what}" if path else what for path, what in mistakes]
        head = [] if file is None else [f"{file}:"]
        super().__init__(" ".join([*head, *lines]) if mistakes[0][0] == "" else "\n".join([*head, *lines]))
        self.mistakes = mistakes


def load(path: Path | None, environ: Mapping[str, str], *, secrets: bool = True) -> Config:
    """Read, check and resolve. None is the default: no file, nothing switched on. ConfigError names every mistake.

    Without `secrets` nothing but the file is looked at: every `api_key` is empty, and no `ca_file` need be there.
    """
    if path is None:
        return resolve({}, Path.cwd(), environ, secrets=secrets)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WrongConfig([("", str(error))], path) from error
    except RecursionError:
        raise WrongConfig([("", "a value is nested too deep")], path) from None
    try:
        return resolve(document, path.resolve().parent, environ, secrets=secrets)
    except WrongConfig as error:
        raise WrongConfig(error.mistakes, path) from None


def resolve(document: dict[str, Any], folder: Path, environ: Mapping[str, str], *, secrets: bool = True) -> Config:
    """Check and resolve a parsed file. Relative paths stand in `folder`. ConfigError has a line for each mistake."""
    file, mistakes = config_file.check_shape(document)
    config = _Resolver(file, mistakes, folder, environ if secrets else None, load_catalogue()).config()
    if mistakes:
        raise WrongConfig([(_dotted(where), what) for where, what in sorted(mistakes.items())])
    return config


def _dotted(where: tuple[str, ...]) -> str:
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in where)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class _Resolver:
    """Turns one file into a Config and notes down every mistake on the way.

    What is wrong is left out, and what hangs on something that was left out is passed over: one mistake, one line.
    """

    def __init__(
        self, file: File, mistakes: Mistakes, folder: Path, environ: Mapping[str, str] | None, catalogue: Catalogue
    ) -> None:
        self.file, self.folder, self.catalogue = file, folder, catalogue
        self.environ = environ  # None: leave the secrets where they are
        self.mistakes = mistakes
        self.broken = {where[:depth] for where in mistakes for depth in (1, 2, 3)}  # sections, tables, keys left out
        self.left_out = frozenset(mistakes)
        self.prices: list[PriceVersion] = []
        self.dialects = dict(catalogue.dialects)

    def wrong(self, what: str, *where: str) -> None:
        if where[:1] != ("models",) or where not in self.broken:  # a key that was left out is no second mistake
            self.mistakes.setdefault(where, what)

    def config(self) -> Config:
        server, plans = self.server(), self.plans()
        for name, own in self.file.dialects.items():
            self.dialect(name, own)
        self.schedules = {name: self.schedule(name, entry.schedule) for name, entry in self.file.providers.items()}
        providers = {}
        for name, entry in self.file.providers.items():
            before = len(self.mistakes)
            provider = self.provider(name, entry)
            if provider is not None and len(self.mistakes) == before:
                providers[name] = provider
        ledger_path = self.folder / self.file.ledger.url.removeprefix("sqlite:")
        models = self.models(providers)
        return Config(server, ledger_path, self.file.billing.currency, plans, providers, models, tuple(self.prices))

    def server(self) -> Server:
        given = self.file.server
        timeouts = Timeouts(**given.timeouts.model_dump(exclude_none=True))
        limits = Limits(**given.limits.model_dump(exclude_none=True))
        if limits.bodies_bytes < limits.body_bytes:
            self.wrong("expected at least server.limits.body_bytes", "server", "limits", "bodies_bytes")
        listen, admin_listen = _address(given.listen), _address(given.admin_listen)
        if listen == admin_listen and listen.port:
            self.wrong("expected another address than server.listen", "server", "admin_listen")
        return Server(listen, admin_listen, timeouts, limits)

    def plans(self) -> dict[str, Plan]:
        plans = {
            name: Plan(name, entry.rpm, entry.rung, parse_nano(entry.min_paid), parse_nano(entry.min_spent))
            for name, entry in self.file.plans.items()
        }
        for plan in plans.values():
            if not plan.rung and plan.rank != (0, 0):
                self.wrong("expected rung = true beside min_paid or min_spent", "plans", plan.name)
        if ("plans",) in self.broken:
            return plans  # a rung may be missing because of its mistake
        ladder = sorted((plan for plan in plans.values() if plan.rung), key=lambda plan: plan.rank)
        entries = [plan.name for plan in ladder if plan.rank == (0, 0)]
        if len(entries) != 1:
            found = " and ".join(entries) or "none"
            self.wrong(f"expected exactly one rung without a threshold, the entry plan; found {found}", "plans")
        for below, above in pairwise(ladder):
            if below.rank == above.rank != (0, 0):
                self.wrong(f"expected other thresholds than those of {below.name}", "plans", above.name)
            if above.rpm < below.rpm:
                self.wrong(f"expected at least {below.rpm}, as {below.name} below it", "plans", above.name, "rpm")
        return plans

    # --- dialects and providers -----------------------------------------------------------------------------------

    def dialect(self, name: str, entry: config_file.Dialect) -> None:
        base = self.catalogue.dialects.get(entry.based_on or "openai")
        if name in self.catalogue.dialects:
            self.wrong("expected another name, the catalogue has this one; based_on = it changes it", "dialects", name)
        elif base is None:
            self.wrong(f"expected one of {', '.join(self.catalogue.dialects)}", "dialects", name, "based_on")
        else:
            raw = entry.model_dump(exclude_none=True, exclude={"based_on"})
            made = self.dialects[name] = make_dialect(name, raw, base)
            refused = {parameter.casefold() for parameter in made.refused_parameters}
            for ours, theirs in made.renamed_parameters:
                if theirs.casefold() in refused:
                    told = "expected a name that refused_parameters does not have"
                    self.wrong(told, "dialects", name, "renamed_parameters", ours)
            return
        self.broken.add(("dialects", name))

    def schedule(self, name: str, entry: config_file.Schedule | None) -> Schedule | None:
        """Return when a provider's dear price holds: as the file says, or else as the catalogue does."""
        if entry is None:
            known = self.catalogue.providers.get(name)
            return known.schedule if known else None
        own = make_calendar([] if isinstance(entry.holidays, str) else entry.holidays or [], entry.working_days)
        if isinstance(entry.holidays, str):
            calendar = self.catalogue.calendars.get(entry.holidays)
            if calendar is None:
                names = ", ".join(self.catalogue.calendars)
                self.wrong(f"expected one of {names}, or a list of days", "providers", name, "schedule", "holidays")
                return None
            own = replace(calendar, working_days=calendar.working_days | own.working_days)
        return make_schedule(entry.seconds_east, entry.peak, own)

    def provider(self, name: str, entry: config_file.Provider) -> Provider | None:
        known = self.catalogue.providers.get(name)
        own = entry.dialect in self.dialects and entry.dialect not in self.catalogue.dialects
        dialect = known.dialect if known and not own else self.dialects.get(entry.dialect or "")
        base_url = entry.base_url or (known.base_url if known else None)
        if dialect is None and {("dialects",), ("dialects", entry.dialect or "")} & self.broken:
            return None  # it is told of its dialect
        if known is not None and not own and entry.dialect not in (None, known.dialect.name):
            told = f"expected {known.dialect.name}, or nothing, or a dialect of your own"
            self.wrong(told, "providers", name, "dialect")
        if dialect is None and base_url is None and entry.dialect is None:
            near = difflib.get_close_matches(name, self.catalogue.providers, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            unknown = f"no such provider in the catalogue{hint} A provider of your own needs base_url and dialect"
            self.wrong(unknown, "providers", name)
            return None
        if dialect is None:
            self.wrong(f"expected one of {', '.join(self.dialects)}", "providers", name, "dialect")
        if base_url is None:
            self.wrong("missing, and the provider is not in the catalogue", "providers", name, "base_url")
        if dialect is None or base_url is None:
            return None
        if entry.ask_usage is not None:
            dialect = replace(dialect, ask_usage=entry.ask_usage)
        try:
            base_url = check_base_url(base_url, allow_private=entry.allow_private)
        except ValueError as error:
            self.wrong(str(error), "providers", name, "base_url")
        ca_file = self.folder / entry.ca_file if entry.ca_file else None
        if self.environ is not None and ca_file is not None and not os.path.isfile(ca_file):
            self.wrong(f"no such file: {ca_file}", "providers", name, "ca_file")
        return Provider(
            name=name,
            base_url=base_url,
            api_key=self.api_key(name, entry, needed=known is not None),
            dialect=dialect,
            allow_private=entry.allow_private,
            on_disconnect=entry.on_disconnect,
            in_flight_max=entry.in_flight_max,
            retry_stale=entry.retry_stale,
            ca_file=ca_file,
        )

    def api_key(self, name: str, entry: config_file.Provider, *, needed: bool) -> str:
        """Read the secret. What is wrong with it is said without quoting it."""
        if entry.api_key_env is not None and entry.api_key_file is not None:
            self.wrong("give one of api_key_env and api_key_file, not both", "providers", name)
            return ""
        if entry.api_key_env is None and entry.api_key_file is None:
            if needed:
                self.wrong("expected api_key_env or api_key_file", "providers", name)
            return ""
        if self.environ is None:
            return ""
        if entry.api_key_env is not None:
            key, value = "api_key_env", self.environ.get(entry.api_key_env)
            if value is None:
                self.wrong(f"the environment has no variable {entry.api_key_env}", "providers", name, key)
                return ""
        else:
            assert entry.api_key_file is not None
            key = "api_key_file"
            try:
                value = (self.folder / entry.api_key_file).read_text("utf-8")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not text"
                self.wrong(f"cannot be read: {reason}", "providers", name, key)
                return ""
        secret = value.strip()
        if not secret:
            self.wrong("the secret is empty", "providers", name, key)
        elif not (secret.isascii() and secret.isprintable()) or " " in secret:
            self.wrong("the secret has characters that no header can carry", "providers", name, key)
        return secret

    def list_currency(self, name: str) -> str | None:
        """The currency in which a known provider bills this deployment; None where that is not decided."""
        currencies = self.catalogue.providers[name].currencies
        entry = self.file.providers.get(name)
        chosen = entry.currency if entry is not None else None
        if chosen is None and self.file.billing.currency in currencies:
            return self.file.billing.currency
        if chosen is None and len(currencies) == 1:
            return next(iter(currencies))
        if chosen not in currencies:
            if entry is not None:
                self.wrong(f"expected one of {', '.join(sorted(currencies))}", "providers", name, "currency")
            return None
        return chosen

    # --- models ---------------------------------------------------------------------------------------------------

    def models(self, providers: Mapping[str, Provider]) -> dict[str, Model]:
        named = {where[1] for where in self.broken if where[0] == "providers" and len(where) == 2}
        switched_on = [name for name in self.catalogue.providers if name in self.file.providers or name in named]
        currency = {name: self.list_currency(name) for name in switched_on}
        servers: dict[str, list[str]] = {}  # public id → the providers that serve it
        for name in switched_on:
            known = self.catalogue.providers[name]
            for public_id, upstream in known.public_ids.items():
                listing = known.listings[upstream]
                asked = self.file.models.get(public_id)
                own_price = asked is not None and asked.price is not None
                priced = currency[name] is None or currency[name] in listing.prices or own_price
                if priced and (asked is not None or not listing.disabled):
                    servers.setdefault(public_id, []).append(name)
        models = {}
        for public_id in [*servers, *(public_id for public_id in self.file.models if public_id not in servers)]:
            entry = self.file.models.get(public_id, config_file.Model())
            if not entry.enabled or ("models", public_id) in self.left_out:
                continue
            name = self.choose(public_id, entry, servers.get(public_id, []), named)
            if name in providers and currency.get(name, "") is not None:
                model = self.model(public_id, entry, name, providers[name].dialect, currency.get(name))
                if model is not None:
                    models[public_id] = model
        return models

    def choose(self, public_id: str, entry: config_file.Model, servers: list[str], broken: set[str]) -> str:
        """Return the provider of a model, or the empty text and a mistake."""
        if entry.provider is not None:
            if entry.provider in self.file.providers or entry.provider in broken:
                return entry.provider
            self.wrong("expected a provider that is switched on in this file", "models", public_id, "provider")
        elif len(servers) > 1:
            both = " and ".join(servers)
            self.wrong(f"{both} both serve it; expected provider = one of them", "models", public_id)
        elif not servers:
            self.wrong("missing, and no provider that is switched on has the model", "models", public_id, "provider")
        else:
            return servers[0]
        return ""

    def model(
        self, public_id: str, entry: config_file.Model, name: str, dialect: Dialect, currency: str | None
    ) -> Model | None:
        known = self.catalogue.providers.get(name)
        upstream = entry.upstream or (known.public_ids.get(public_id) if known else None) or public_id
        listing = known.listings.get(upstream) if known else None
        facts: dict[str, Any] = {"created": 0, **(listing.facts if listing else {})}
        default_output = min(facts.get("default_output", _DEFAULT_OUTPUT), entry.max_output or TOKENS_MAX)
        facts |= entry.model_dump(exclude_none=True, exclude={"enabled", "provider", "upstream", "price"})
        missing = [key for key in ("context", "max_output") if key not in facts]
        for key in missing:
            self.wrong("missing, and the model is not in the catalogue", "models", public_id, key)
        if not missing:
            facts["default_output"] = entry.default_output or min(default_output, facts["max_output"])
            lengths = {("models", public_id, key) for key in ("context", "max_output", "default_output")}
            told = bool(lengths & self.broken)  # one of them was left out: what stands in for it proves nothing
            if facts["max_output"] > facts["context"] and not told:
                self.wrong(f"expected at most the context, {facts['context']}", "models", public_id, "max_output")
            if facts["default_output"] > facts["max_output"] and not told:
                self.wrong(f"expected at most {facts['max_output']}", "models", public_id, "default_output")
            if not facts.get("limit_covers_thinking", True) and not facts.get("thinking_max"):
                self.wrong("expected a bound, the limit does not cover thinking", "models", public_id, "thinking_max")
        facts.setdefault("limit_parameter", dialect.limit_parameter)
        # What the catalogue says of a model, it says beside its own dialect of the provider.
        self.bound_thinking(facts, dialect, known=listing is not None and dialect.name in self.catalogue.dialects)
        facts["allowed_parameters"] = frozenset(facts.get("allowed_parameters", ()))
        tariff = self.tariff(public_id, entry, name, listing, currency)
        if tariff is None or missing:
            return None
        return Model(id=public_id, provider=name, upstream=upstream, dialect=dialect, tariff=tariff, **facts)

    def bound_thinking(self, facts: dict[str, Any], dialect: Dialect, *, known: bool) -> None:
        """Complete what is known of a model's thinking: where the limit may not cover it, it has a bound beside it."""
        if "limit_covers_thinking" in facts:
            return
        beside = not dialect.limit_covers_thinking
        if beside and "thinking_max" not in facts and not known:
            facts["thinking_max"] = facts.get("context", 0)  # no model thinks longer
        # An entry of the catalogue that says nothing of thinking is of a model that does not think.
        facts["limit_covers_thinking"] = not (beside and facts.get("thinking_max"))

    def tariff(
        self, public_id: str, entry: config_file.Model, name: str, listing: Listing | None, currency: str | None
    ) -> Tariff | None:
        billing, schedule = self.file.billing, self.schedules.get(name)
        if entry.price is not None:
            if entry.price.off_peak is not None and schedule is None:
                if ("providers", name, "schedule", "holidays") not in self.mistakes:
                    told = f"expected a schedule of the provider: providers.{name}.schedule"
                    self.wrong(told, "models", public_id, "price", "off_peak")
                return None
            own = self.file.providers[name].currency or billing.currency
            listed = entry.price.model_dump(exclude_none=True, exclude={"currency"})
            price = ListPrice(entry.price.currency or own, listed, {"source": "configuration"})
        elif listing is not None and currency is not None and currency in listing.prices:
            price = listing.prices[currency]
        else:
            self.wrong("missing, and the catalogue has none: it cannot be served", "models", public_id, "price")
            return None
        fx = "1" if price.currency == billing.currency else billing.fx.get(price.currency)
        if fx is None:
            if ("billing",) not in self.broken:
                self.wrong(f"missing: {name} prices {public_id} in it", "billing", "fx", price.currency)
            return None
        try:
            tariff, versions = build_tariff(
                price,
                model=public_id,
                provider=name,
                currency=billing.currency,
                fx=fx,
                markup=billing.markup,
                schedule=schedule,
            )
        except ValueError as error:
            self.wrong(str(error), "models", public_id, "price")
            return None
        self.prices.extend(versions)
        return tariff
