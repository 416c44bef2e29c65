"""What clients may ask for: names that mean one model each, and what is known but cannot be served."""

from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.config import Config, WrongConfig, resolve
from tests.catalogue.published import table

CATALOGUE = load_catalogue()
# The same models of one company, on two platforms.
TWINS = {
    frozenset({"qwen-intl", "qwen-cn"}),
    frozenset({"moonshot-intl", "moonshot-cn"}),
    frozenset({"zai", "zhipu-cn"}),
    frozenset({"minimax-intl", "minimax-cn"}),
    frozenset({"stepfun-intl", "stepfun-cn"}),
    frozenset({"siliconflow-intl", "siliconflow-cn"}),
}


def switch_on(*names: str, models: dict[str, Any] | None = None) -> Config:
    providers = {name: {"api_key_env": "K"} for name in names}
    document = {"providers": providers, "models": models or {}, "billing": {"fx": {"CNY": "0.1389"}}}
    return resolve(document, Path("/"), {"K": "k"})


def shared() -> dict[str, set[str]]:
    """Public ids that more than one provider has, with these providers."""
    having: defaultdict[str, set[str]] = defaultdict(set)
    for name, provider in CATALOGUE.providers.items():
        for public_id in provider.public_ids:
            having[public_id].add(name)
    return {public_id: names for public_id, names in having.items() if len(names) > 1}


def test_public_ids_name_models_that_exist() -> None:
    for by_provider in table("public_ids.json").values():
        for name, upstream in by_provider.items():
            assert upstream in CATALOGUE.providers[name].listings


def test_every_known_model_can_be_asked_for() -> None:
    for provider in CATALOGUE.providers.values():
        renamed = {"deepseek-v4-flash", "deepseek-v4-flash-vision-exp"}  # retired ids, served as deepseek-flash
        assert set(provider.listings) - set(provider.public_ids.values()) <= renamed


def test_one_id_means_one_model() -> None:
    """Only twins share ids, and then for their own model of that name: no id means another model elsewhere."""
    for public_id, names in shared().items():
        assert frozenset(names) in TWINS, public_id
        assert len({CATALOGUE.providers[name].public_ids[public_id] for name in names}) == 1, public_id
    folded = [public_id.casefold() for provider in CATALOGUE.providers.values() for public_id in provider.public_ids]
    twice = {public_id for public_id in folded if folded.count(public_id) > 1}
    assert twice == {public_id.casefold() for public_id in shared()}  # nor do two differ by their case alone


@pytest.mark.parametrize("pair", sorted(map(sorted, TWINS)), ids="+".join)
def test_twins_that_are_both_on_are_a_mistake_that_names_both(pair: list[str]) -> None:
    both = sorted(id_ for id_, names in shared().items() if names == set(pair))
    listings = [CATALOGUE.providers[name].listings for name in pair]
    priced = [id_ for id_ in both if all(having[id_].prices and not having[id_].disabled for having in listings)]
    if not priced:
        assert pair == ["siliconflow-cn", "siliconflow-intl"]
        assert switch_on(*pair).models
        return
    with pytest.raises(WrongConfig) as wrong:
        switch_on(*pair)
    assert {path for path, _ in wrong.value.mistakes} >= {f'models."{id_}"' for id_ in priced if "." in id_}
    assert all(all(name in what for name in pair) for _, what in wrong.value.mistakes)
    chosen = switch_on(*pair, models={id_: {"provider": pair[0]} for id_ in priced}).models
    assert all(chosen[id_].provider == pair[0] for id_ in priced)


def test_everything_else_can_be_on_at_once() -> None:
    names = [name for name in CATALOGUE.providers if not any(name == max(pair) for pair in TWINS)]
    assert all(frozenset(pair) not in TWINS for pair in combinations(names, 2))
    config = switch_on(*names)
    assert {model.provider for model in config.models.values()} == set(names) - {"siliconflow-cn"}


@pytest.mark.parametrize(
    ("provider", "upstream"),
    [(row["provider"], row["upstream"]) for row in table("prices.json") if "withheld" in row],
)
def test_a_withheld_price_serves_nothing_and_an_own_one_does(provider: str, upstream: str) -> None:
    listing = CATALOGUE.providers[provider].listings[upstream]
    assert not listing.prices
    assert listing.disabled
    assert upstream not in switch_on(provider).models
    with pytest.raises(WrongConfig) as wrong:
        switch_on(provider, models={upstream: {"provider": provider}})
    assert [what for _, what in wrong.value.mistakes if "price" in what or "priced" in what or "missing" in what]
    own = {"provider": provider, "price": {"input": "1", "output": "2", "currency": "CNY"}}
    model = switch_on(provider, models={upstream: own}).models[upstream]
    assert (model.upstream, model.tariff.peak.cost_currency) == (upstream, "CNY")
    assert (model.context, model.max_output) == (listing.facts["context"], listing.facts["max_output"])


def test_short_names_stand_for_dated_ones() -> None:
    found = switch_on("doubao", "hunyuan", "spark").models
    assert found["doubao-seed-1.8"].upstream == "doubao-seed-1-8-251228"
    assert found["doubao-seed-1-8-251228"].upstream == "doubao-seed-1-8-251228"
    assert found["hunyuan-2.0-thinking"].upstream == "hunyuan-2.0-thinking-20251109"
    assert found["spark-lite"].upstream == "lite"
    assert "spark-max" not in found
