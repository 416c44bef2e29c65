"""The verb that tells what is known of providers, and the README's table of them.

Strategy: everything is read off the catalogue, and off the configuration where that adds to it, so that neither can say
anything else than what the door does. A line of the README's table is a dialect, since what matters of it holds for
each of its providers.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from nexus_proxy.catalogue import Catalogue, Provider, load_catalogue
from nexus_proxy.cli.arguments import json_option
from nexus_proxy.cli.printing import print_json, print_table
from nexus_proxy.cli.settings import Settings
from nexus_proxy.config import Config
from nexus_proxy.config import Provider as SwitchedOn
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.errors import Refused

BEGIN: Final = "<!-- What follows is written by: nexus-proxy providers --write README.md -->\n"
END: Final = "<!-- Until here. -->\n"
_TABLE = {
    "provider": "provider",
    "on": "on",
    "dialect": "dialect",
    "models": "upstream models",
    "currencies": "billed in",
    "certainty": "certain",
    "matters": "what of its dialect matters",
}
_SPARE = ("matters", "certainty", "currencies")
_NAMED = 3  # models of a dialect that the README names
_CONFIDENCE = ("high", "medium", "low")
_DOCUMENT: Final = click.Path(exists=True, dir_okay=False, writable=True, path_type=Path)


@click.command()
@click.option("--write", "target", type=_DOCUMENT, hidden=True, help="Renew the table in this file.")
@json_option
@click.pass_obj
def providers(settings: Settings, target: Path | None, as_json: bool) -> None:
    """The providers that are known.

    What of their dialect matters to a user, how many upstream models have a price, and how certain that is. Last,
    those of the configuration.
    """
    catalogue = load_catalogue()
    if target is not None:
        target.write_text(renewed(target.read_text("utf-8"), catalogue), "utf-8")
        return
    config = settings.config_without_secrets()
    rows = [_describe(provider, config.providers.get(name)) for name, provider in catalogue.providers.items()]
    own = (provider for name, provider in config.providers.items() if name not in catalogue.providers)
    rows += [_describe_own(provider, config) for provider in own]
    if as_json:
        print_json(rows)
    else:
        lines = [{**row, "models": str(len(row["priced_models"])), "on": "on" if row["on"] else None} for row in rows]
        print_table(lines, _TABLE, empty="", spare=_SPARE)


def renewed(text: str, catalogue: Catalogue) -> str:
    """Return a document with the table of providers, between its two marks, as the catalogue has it. Refused."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise Refused("the file has no two marks with a table of providers between them")
    return "".join([before, begin, "\n", markdown(catalogue), "\n", end, after])


def markdown(catalogue: Catalogue) -> str:
    """Return the table of providers, a line for each dialect; last, what nobody of the catalogue speaks."""
    heading = "| provider | dialect | what of its dialect matters | upstream models with a price | how certain |\n"
    spoken = [(dialect, _speakers(catalogue, dialect)) for dialect in catalogue.dialects.values()]
    lines = [_line(dialect, speakers) for dialect, speakers in sorted(spoken, key=lambda pair: not pair[1])]
    return f"{heading}|---|---|---|---|---|\n" + "".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines
    )


def _line(dialect: Dialect, speakers: list[Provider]) -> tuple[str, ...]:
    if not speakers:
        return "any other, by configuration", f"`{dialect.name}`", dialect.matters, "your own", dialect.certainty
    names = "<br>".join(f"`{provider.name}` {provider.title}" for provider in speakers)
    models = " + ".join(str(len(_priced(provider))) for provider in speakers)
    named = list(dict.fromkeys(model for provider in speakers for model in _usable(provider)))
    if named:
        models += ": " + ", ".join(f"`{model}`" for model in named[:_NAMED]) + ("…" if len(named) > _NAMED else "")
    prices = ", ".join(f"{number} {word}" for word, number in _confidence(speakers).items()) or "none"
    return names, f"`{dialect.name}`", dialect.matters, models, f"{dialect.certainty}; prices: {prices}"


def _describe(provider: Provider, switched_on: SwitchedOn | None) -> dict[str, Any]:
    """Return what is known of a provider; where it is switched on, its dialect and address are the configuration's."""
    speaks = switched_on or provider
    return {
        "provider": provider.name,
        "title": provider.title,
        **_spoken(speaks.dialect),
        "base_url": speaks.base_url,
        "models": list(provider.public_ids),
        "priced_models": list(_priced(provider).values()),
        "currencies": sorted(provider.currencies),
        "notes": provider.notes,
        "price_confidence": _confidence([provider]),
        "on": switched_on is not None,
    }


def _describe_own(provider: SwitchedOn, config: Config) -> dict[str, Any]:
    models = {id_: model for id_, model in config.models.items() if model.provider == provider.name}
    return {
        "provider": provider.name,
        "title": provider.name,
        **_spoken(provider.dialect),
        "base_url": provider.base_url,
        "models": list(models),
        "priced_models": list({model.upstream: id_ for id_, model in models.items()}.values()),
        "currencies": sorted({model.tariff.peak.cost_currency for model in models.values()}),
        "notes": "",
        "price_confidence": {},
        "on": True,
    }


def _spoken(dialect: Dialect) -> dict[str, str]:
    return {
        "dialect": dialect.name,
        "matters": dialect.matters,
        "certainty": dialect.certainty,
        "dialect_notes": dialect.notes,
    }


def _speakers(catalogue: Catalogue, dialect: Dialect) -> list[Provider]:
    return [provider for provider in catalogue.providers.values() if provider.dialect.name == dialect.name]


def _priced(provider: Provider) -> dict[str, str]:
    """Return the provider's own ids that can be asked for and have a price, each with what clients ask for: an id of
    ours, where there is one, before the same as the provider's."""
    ids: dict[str, str] = {}
    for public_id, upstream in provider.public_ids.items():
        if provider.listings[upstream].prices and ids.get(upstream, upstream) == upstream:
            ids[upstream] = public_id
    return {upstream: ids[upstream] for upstream in provider.listings if upstream in ids}


def _usable(provider: Provider) -> list[str]:
    """Return the public ids of the models that have a price and are not disabled."""
    return [id_ for upstream, id_ in _priced(provider).items() if not provider.listings[upstream].disabled]


def _confidence(speakers: Iterable[Provider]) -> dict[str, int]:
    """Count the prices of some providers by how sure they are."""
    counts = Counter(
        str(price.about.get("confidence"))
        for provider in speakers
        for upstream in _priced(provider)
        for price in provider.listings[upstream].prices.values()
    )
    return {word: counts[word] for word in (*_CONFIDENCE, *sorted(counts.keys() - set(_CONFIDENCE))) if counts[word]}
