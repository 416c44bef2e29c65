"""Models that are served: which provider serves each, what bounds it, what it costs."""

from collections.abc import Mapping
from typing import Any, Final

from nexus_proxy.catalogue import Listing
from nexus_proxy.config import file as config_file
from nexus_proxy.config.providers import ProviderResolver
from nexus_proxy.config.reading import Reading
from nexus_proxy.config.types import Provider
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.pricelist import TOKENS_MAX, ListPrice, build_tariff
from nexus_proxy.core.money.prices import PriceVersion, Tariff
from nexus_proxy.core.wire.dialect import Dialect

_DEFAULT_OUTPUT: Final = 4096  # tokens, where the model's entry declares no larger one


class ModelResolver:
    """Resolves models, once the providers are."""

    def __init__(self, reading: Reading, providers: ProviderResolver) -> None:
        self.reading, self.file, self.catalogue, self.wrong = reading, reading.file, reading.catalogue, reading.wrong
        self.providers = providers
        self.prices: list[PriceVersion] = []

    def resolve(self, providers: Mapping[str, Provider]) -> dict[str, Model]:
        """Return the models that are right, by their public ids; `prices` has their versions."""
        named = {where[1] for where in self.reading.broken if where[0] == "providers" and len(where) == 2}
        switched_on = [name for name in self.catalogue.providers if name in self.file.providers or name in named]
        currency = {name: self.providers.list_currency(name) for name in switched_on}
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
            if not entry.enabled or ("models", public_id) in self.reading.left_out:
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
            told = bool(lengths & self.reading.broken)  # one of them was left out: what stands in for it proves nothing
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
        billing, schedule = self.file.billing, self.providers.schedules.get(name)
        if entry.price is not None:
            if entry.price.off_peak is not None and schedule is None:
                if ("providers", name, "schedule", "holidays") not in self.reading.mistakes:
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
            if ("billing",) not in self.reading.broken:
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
