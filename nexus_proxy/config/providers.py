"""Providers that are switched on, and dialects of the deployment's own: the file's words over the catalogue's."""

import difflib
import os
from dataclasses import replace

from nexus_proxy.catalogue.loader import make_calendar, make_dialect, make_schedule
from nexus_proxy.config import file as config_file
from nexus_proxy.config.reading import Reading
from nexus_proxy.config.types import Provider
from nexus_proxy.core.control.addresses import check_base_url
from nexus_proxy.core.money.prices import Schedule


class ProviderResolver:
    """Resolves dialects, schedules and providers, in that order; `resolve` once, then ask for the rest."""

    def __init__(self, reading: Reading) -> None:
        self.reading, self.file, self.catalogue, self.wrong = reading, reading.file, reading.catalogue, reading.wrong
        self.dialects = dict(reading.catalogue.dialects)
        self.schedules: dict[str, Schedule | None] = {}

    def resolve(self) -> dict[str, Provider]:
        """Return the providers that are right, by their names."""
        for name, own in self.file.dialects.items():
            self.dialect(name, own)
        self.schedules = {name: self.schedule(name, entry.schedule) for name, entry in self.file.providers.items()}
        providers = {}
        for name, entry in self.file.providers.items():
            before = len(self.reading.mistakes)
            provider = self.provider(name, entry)
            if provider is not None and len(self.reading.mistakes) == before:
                providers[name] = provider
        return providers

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
        self.reading.broken.add(("dialects", name))

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
        if dialect is None and {("dialects",), ("dialects", entry.dialect or "")} & self.reading.broken:
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
        ca_file = self.reading.folder / entry.ca_file if entry.ca_file else None
        if self.reading.environ is not None and ca_file is not None and not os.path.isfile(ca_file):
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
        if self.reading.environ is None:
            return ""
        if entry.api_key_env is not None:
            key, value = "api_key_env", self.reading.environ.get(entry.api_key_env)
            if value is None:
                self.wrong(f"the environment has no variable {entry.api_key_env}", "providers", name, key)
                return ""
        else:
            assert entry.api_key_file is not None
            key = "api_key_file"
            try:
                value = (self.reading.folder / entry.api_key_file).read_text("utf-8")
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
