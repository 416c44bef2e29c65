"""The package data: complete, priced, sourced, and resolvable whatever is switched on."""

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.config import resolve
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.pricelist import TOKENS_MAX
from nexus_proxy.core.money.prices import Rates, bound_nano
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.refusal import COMMON_RULES
from nexus_proxy.errors import NexusError, leaves

CATALOGUE = load_catalogue()
FX = {"CNY": "0.1389"}
FREE = {"glm-4.7-flash", "glm-4.5-flash", "hunyuan-lite", "lite"}


def table(name: str) -> Any:
    return json.loads(resources.files("nexus_proxy.catalogue").joinpath(name).read_text())


def models_of(*names: str, **billing: Any) -> dict[str, Model]:
    providers = {name: {"api_key_env": "K"} for name in names}
    document = {"providers": providers, "billing": {"fx": FX, **billing}}
    return dict(resolve(document, Path("/"), {"K": "k"}).models)


def rates(model: Model, tier: int = 0) -> Rates:
    return model.tariff.peak.tiers[tier].rates


@pytest.mark.parametrize("name", CATALOGUE.providers)
@pytest.mark.parametrize("currency", ["USD", "CNY", "EUR"])
def test_every_provider_resolves_in_every_billing_currency(name: str, currency: str) -> None:
    document = {
        "providers": {name: {"api_key_env": "K", "currency": min(CATALOGUE.providers[name].currencies)}},
        "billing": {
            "currency": currency,
            "fx": {other: "1.5" for other in ("USD", "CNY") if other != currency},
        },
    }
    found = resolve(document, Path("/"), {"K": "k"}).models
    assert bool(found) is (name != "siliconflow-cn")  # of which no price is known
    for model in found.values():
        assert 0 < model.default_output <= model.max_output <= model.context <= TOKENS_MAX
        assert model.limit_covers_thinking or 0 < model.thinking_max <= TOKENS_MAX
        assert model.created > 1_700_000_000
        for price in model.tariff.prices():
            for tier in price.tiers:
                assert (tier.rates.input > 0) is (tier.rates.output > 0) is (model.upstream not in FREE)
            whole = model.max_output + (0 if model.limit_covers_thinking else model.thinking_max)
            assert bound_nano(price.tiers, model.context, whole) < 100 * NANO or currency == "EUR"


def test_every_row_has_a_source_and_a_model_and_appears_once() -> None:
    rows, models = table("prices.json"), table("models.json")
    keys = [(row["provider"], row["currency"], row["upstream"]) for row in rows]
    assert len(keys) == len(set(keys))
    served = [(entry["provider"], entry["upstream"]) for entry in models]
    assert len(served) == len(set(served))
    assert {(provider, upstream) for provider, _, upstream in keys} == set(served)
    assert all(row["source"] and row["source_date"].startswith("202") for row in rows)
    assert {row["confidence"] for row in rows} <= {"high", "medium", "low"}
    assert {row["provider"] for row in rows} == set(CATALOGUE.providers)


def test_every_fact_is_a_field_of_a_model() -> None:
    fields = {field.name for field in dataclasses.fields(Model)}
    facts = {
        key for provider in CATALOGUE.providers.values() for entry in provider.listings.values() for key in entry.facts
    }
    assert facts <= fields
    price_keys = {key for row in table("prices.json") for key in row}
    assert price_keys == {
        *("provider", "currency", "upstream", "input", "cached_input", "cache_write", "output", "thinking"),
        *("tiers", "off_peak", "source", "source_date", "confidence", "notes", "withheld"),
    }


def test_the_documented_ids_are_served() -> None:
    found = models_of("deepseek", "qwen-intl", "moonshot-intl")
    assert {id_: found[id_].upstream for id_ in ("deepseek-v4", "deepseek-v4-flash", "deepseek-v4-pro")} == {
        "deepseek-v4": "deepseek-v4-pro",
        "deepseek-v4-flash": "deepseek-flash",
        "deepseek-v4-pro": "deepseek-v4-pro",
    }
    assert {"qwen-max", "qwen3.8-max", "qwen3.7-plus", "qwen3-coder-plus", "kimi-k3.1-pro", "kimi-k2.6"} <= set(found)


def test_some_prices_read_off_the_providers_pages() -> None:
    found = models_of("deepseek", "qwen-intl", "moonshot-intl")
    assert rates(found["deepseek-v4"]) == Rates(1_320_000, 44_000, 1_320_000, 3_960_000, 3_960_000)
    off_peak = found["deepseek-v4-flash"].tariff.off_peak
    assert off_peak is not None
    assert off_peak.tiers[0].rates == Rates(150_000, 3_000, 150_000, 600_000, 600_000)
    assert rates(found["qwen-max"]) == Rates(1_600_000, 320_000, 2_000_000, 6_400_000, 6_400_000)
    assert rates(found["qwen-plus"], 1) == Rates(1_200_000, 240_000, 1_500_000, 3_600_000, 12_000_000)
    assert [tier.input_max for tier in found["qwen3-max"].tariff.peak.tiers] == [32_000, 128_000, None]
    assert rates(found["kimi-k2.6"]) == Rates(950_000, 160_000, 950_000, 4_000_000, 4_000_000)
    assert rates(models_of("qwen-cn", currency="CNY", fx={})["qwen-max"]).output == 9_600_000


def test_off_peak_is_exactly_half() -> None:
    for model in models_of("deepseek").values():
        assert model.tariff.off_peak is not None
        dear, cheap = rates(model), model.tariff.off_peak.tiers[0].rates
        assert (dear.input, dear.cached, dear.output) == (2 * cheap.input, 2 * cheap.cached, 2 * cheap.output)


def test_models_that_think_have_room_to_and_temperatures_go_only_where_they_are_taken() -> None:
    found = models_of("deepseek", "qwen-intl", "moonshot-intl")
    assert found["deepseek-v4"].default_output == found["kimi-k2.6"].default_output == 32_768
    assert found["qwen-max"].default_output == 4096
    assert not found["kimi-k2.6"].send_temperature
    assert found["deepseek-v4"].send_temperature
    assert found["qwen-max"].limit_covers_thinking
    assert not found["qwen3.8-max"].limit_covers_thinking


def test_where_thinking_is_not_known_to_be_inside_the_limit_the_hold_counts_it_beside() -> None:
    found = models_of("zai", "minimax-intl", "doubao", "hunyuan", "stepfun-cn", "siliconflow-intl", "xiaomi-mimo")
    covered = ("glm-5.3", "MiniMax-M3", "doubao-seed-1.8", "hunyuan-lite", "step-1-8k", "deepseek-ai/DeepSeek-V3")
    assert all(found[id_].limit_covers_thinking and not found[id_].thinking_max for id_ in covered)
    beside = {
        "hunyuan-t1-latest": 65_536,
        "step-3.7-flash": 131_072,
        "Qwen/Qwen3-8B": 32_768,
        "zai-org/GLM-5.2": 131_072,
        "mimo-v2.6-pro": 131_072,
    }
    assert {id_: found[id_].thinking_max for id_ in beside if not found[id_].limit_covers_thinking} == beside
    by_parameter = {id_: found[id_].limit_parameter for id_ in ("doubao-seed-1.8", "MiniMax-M3", "glm-5.3")}
    assert by_parameter == {
        "doubao-seed-1.8": "max_completion_tokens",  # max_tokens would leave its thinking without a limit
        "MiniMax-M3": "max_completion_tokens",
        "glm-5.3": "max_tokens",
    }


def fits(dialect: Dialect, status: int, mark: str, message: str) -> str | None:
    """The first rule that fits, as `ErrorRule` defines it."""
    for rule in (*dialect.errors, *COMMON_RULES):
        if rule.statuses and status not in rule.statuses:
            continue
        if (rule.marks and mark not in rule.marks) or rule.text not in message.casefold():
            continue
        return rule.code
    return None


@pytest.mark.parametrize(
    ("dialect", "status", "mark", "message", "code"),
    [
        ("deepseek", 402, "invalid_request_error", "Insufficient Balance", "upstream_no_funds"),
        ("deepseek", 200, "unknown_error", "Insufficient Balance", "upstream_no_funds"),
        ("deepseek", 400, "invalid_request_error", "bad", None),
        ("qwen", 400, "Arrearage", "Access denied", "upstream_no_funds"),
        ("qwen", 403, "AllocationQuota.FreeTierOnly", "used up", "upstream_no_funds"),
        ("qwen", 429, "limit_requests", "", "upstream_rate_limited"),
        ("qwen", 503, "ServiceUnavailable", "<503> InternalError.Algo: Too many requests", "upstream_rate_limited"),
        ("qwen", 503, "ServiceUnavailable", "busy", "upstream_overloaded"),
        ("qwen", 400, "data_inspection_failed", "", "invalid_parameter"),
        ("qwen", 401, "invalid_api_key", "", "upstream_auth"),
        ("moonshot", 429, "exceeded_current_quota_error", "suspended", "upstream_no_funds"),
        ("moonshot", 429, "rate_limit_reached_error", "", "upstream_rate_limited"),
        ("moonshot", 429, "engine_overloaded_error", "", "upstream_overloaded"),
        ("moonshot", 401, "incorrect_api_key_error", "", "upstream_auth"),
        ("moonshot", 400, "content_filter", "", "invalid_parameter"),
        ("openai", 429, "insufficient_quota", "", "upstream_no_funds"),
    ],
)
def test_b11_no_money_is_recognised_in_every_disguise(
    dialect: str, status: int, mark: str, message: str, code: str | None
) -> None:
    assert fits(CATALOGUE.dialects[dialect], status, mark, message) == code


def test_every_rule_names_a_code_that_exists_and_a_text_that_can_match() -> None:
    known = {leaf.code for leaf in leaves(NexusError)}
    for dialect in CATALOGUE.dialects.values():
        for rule in dialect.errors:
            assert rule.code in known
            assert rule.text == rule.text.casefold()
            assert rule.statuses or rule.marks or rule.text


def test_no_dialect_repeats_a_rule_that_holds_for_all() -> None:
    common = {(rule.code, mark) for rule in COMMON_RULES for mark in rule.marks}
    common |= {(rule.code, rule.text) for rule in COMMON_RULES if rule.text}
    common |= {("upstream_no_funds", "402"), ("upstream_overloaded", "529")}
    for name, dialect in CATALOGUE.dialects.items():
        for rule in dialect.errors:
            alone = [] if rule.marks or rule.text else map(str, rule.statuses)
            said = {(rule.code, what) for what in (*rule.marks, *([rule.text] if rule.text else []), *alone)}
            assert not said & common, name


def test_usage_is_asked_for_only_where_it_does_not_come_by_itself() -> None:
    unasked = {name for name, dialect in CATALOGUE.dialects.items() if not dialect.ask_usage}
    assert unasked == {"deepseek", "moonshot", "minimax", "siliconflow", "spark", "yi"}
    in_choice = {name for name, dialect in CATALOGUE.dialects.items() if dialect.usage.in_choice}
    assert in_choice == {"moonshot"}
