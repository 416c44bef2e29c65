"""What `models` and `usage` tell, for people and for programs."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.catalogue.dates import known_until
from nexus_proxy.config import load
from tests.cli.terminal import Verbs, on_a_terminal, tiered

TOML = tiered(
    markup="1.2",
    also="moonshot-cn",
    price="""
input = "1"
cached_input = "0.1"
output = "3"
thinking = "4"
tiers = [{ input_max = 8192, output_max = 200, input = "1" }, { input = "2" }]
""",
)
MORNING = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)  # a Monday, 09:00 in China: the peak begins


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, MORNING)


def at(monkeypatch: pytest.MonkeyPatch, instant: datetime) -> None:
    monkeypatch.setattr("nexus_proxy.cli.reports.now_ms", lambda: int(instant.timestamp() * 1000))


def rows_of(rows: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["model"] == model]


# --- models -------------------------------------------------------------------------------------------------------


def test_models_on_a_terminal_break_no_name(tmp_path: Path) -> None:
    path = tmp_path / "nexus.toml"
    path.write_text(
        "".join(f'[providers.{n}]\napi_key_env = "K"\n' for n in ("deepseek", "qwen-intl", "moonshot-intl"))
    )
    models = load(path, {"K": "k"}).models
    for columns in (80, 200):
        lines = on_a_terminal(columns, "--config", str(path), "models")
        assert max(map(len, lines)) <= columns
        ends = next(number for number, line in enumerate(lines) if line.startswith(("Too wide", "peak of ")))
        table = lines[:ends]
        assert any("Too wide for this terminal: provider, provider's id, " in line for line in lines) == (columns == 80)
        assert {line.split()[0] for line in table[3:]} == set(models)
        assert any(line.startswith("deepseek-v4 ") and {"1.32", "0.044", "3.96"} <= set(line.split()) for line in table)
        assert any("deepseek-v4-pro" in line and line.startswith("deepseek-v4 ") for line in table) == (columns == 200)
        assert "peak of deepseek: 09:00–12:00 and 14:00–18:00 (UTC+08:00)" in " ".join(lines)
    assert [line.split()[3] for line in lines if line.startswith("qwen3-max ")] == ["in≤32K", "in≤128K", "above"]
    narrow = on_a_terminal(30, "--config", str(path), "models")
    assert any(line.startswith("deepseek-v4-flash-vision-exp ") for line in narrow)


def test_models_write_numbers_in_full_unless_they_are_round(verbs: Verbs) -> None:
    heading, _, *lines = verbs("models").splitlines()[1:]
    assert heading.split() == [
        *("model", "provider", "provider's", "id", "when", "input", "cached", "output", "thinking", "context"),
        *("max", "out"),
    ]
    assert [line.split() for line in lines if line.startswith("mine/tiered ")] == [
        [
            "mine/tiered",
            "local",
            "mine/tiered",
            "in≤8192",
            "out≤200",
            *["1.20", "0.12", "3.60", "4.80", "32768", "10K"],
        ],
        ["mine/tiered", "local", "mine/tiered", "above", *["2.40", "0.24", "7.20", "9.60", "32768", "10K"]],
    ]
    assert "thinking" not in verbs_of(verbs, TOML.replace('thinking = "4"', ""))("models")


def verbs_of(verbs: Verbs, text: str) -> Verbs:
    verbs.path.write_text(text)
    return verbs


def test_models_for_programs(verbs: Verbs) -> None:
    row = rows_of(verbs.json("models"), "mine/tiered")[0]
    assert {key: row[key] for key in row if key != "price_id"} == {
        "model": "mine/tiered",
        "provider": "local",
        "upstream_model": "mine/tiered",
        "when": "always",
        "input_up_to": 8192,
        "output_up_to": 200,
        "input": "1.20",
        "cached_input": "0.12",
        "cache_write": "1.20",
        "output": "3.60",
        "thinking": "4.80",
        "currency": "USD",
        "context": 32768,
        "max_output": 10000,
    }


def test_no_model_says_what_to_do(verbs: Verbs) -> None:
    verbs.path.write_text("")
    for words in (("models",), ("models", "--prices")):
        assert verbs(*words) == "No models: switch a provider on in the configuration.\n"
        assert verbs.json(*words) == []


# --- models --prices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "period"), [(-1, "off_peak"), (0, "peak"), (3 * 3600 - 1, "peak"), (3 * 3600, "off_peak")]
)
def test_prices_tell_which_is_in_force(verbs: Verbs, monkeypatch: pytest.MonkeyPatch, second: int, period: str) -> None:
    at(monkeypatch, MORNING + timedelta(seconds=second))
    rows = rows_of(verbs.json("models", "--prices"), "deepseek-v4")
    assert {row["when"]: row["in_force"] for row in rows} == {
        "peak": period == "peak",
        "off_peak": period == "off_peak",
    }
    lines = [line.split() for line in verbs("models", "--prices").splitlines() if line.startswith("deepseek-v4 ")]
    assert {line[2] for line in lines if line[3] == "now"} == {period.replace("_", "-")}
    assert {line[2] for line in lines if line[3] == "–"} == {"peak", "off-peak"} - {period.replace("_", "-")}


def test_prices_show_what_accounts_pay_beside_what_the_provider_bills(verbs: Verbs) -> None:
    (row,) = rows_of(verbs.json("models", "--prices"), "kimi-k3")
    assert (row["currency"], row["input"], row["output"]) == ("USD", "3.3336", "16.668")
    assert (row["cost"]["currency"], row["cost"]["input"], row["cost"]["output"]) == ("CNY", "20.00", "100.00")
    assert (row["fx"], row["markup"], row["served"], row["at"]) == ("0.1389", "1.2", True, "2026-11-23T01:00:00Z")
    assert row["source"]
    assert row["source_date"] == "2026-07"
    charge, cost = (line.split() for line in verbs("models", "--prices").splitlines() if line.startswith("kimi-k3 "))
    assert charge[3:7] == ["now", "charge", "USD", "3.3336"]
    assert cost[3:7] == ["now", "cost", "CNY", "20.00"]


def test_prices_of_the_configuration_have_no_date_and_are_not_stale(verbs: Verbs) -> None:
    for row in rows_of(verbs.json("models", "--prices"), "mine/tiered"):
        assert (row["source"], row["source_date"], row["age_days"]) == ("configuration", None, None)
        assert row["stale"] is False
    unmarked = verbs_of(verbs, TOML.replace('markup = "1.2"', ""))("models", "--prices").splitlines()
    lines = [" ".join(line.split()) for line in unmarked if line.startswith("mine/tiered ")]
    assert len(lines) == 2  # what is billed is what is charged: one line for both
    assert "now both USD 1.00" in lines[0]
    assert "now both USD 2.00" in lines[1]


def test_a_price_is_stale_after_90_days(verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    dated = rows_of(verbs.json("models", "--prices"), "deepseek-v4")[0]["source_date"]
    source = datetime.fromisoformat(dated).replace(tzinfo=UTC)
    verbs.path.write_text('[providers.deepseek]\napi_key_env = "K"\n')
    for days, stale in ((90, False), (91, True)):
        at(monkeypatch, source + timedelta(days=days))
        rows = verbs.json("models", "--prices")
        assert {row["stale"] for row in rows} == {stale}
        assert {row["age_days"] for row in rows} == {days}
        models = {row["model"] for row in rows}
        warning = f"{len(models)} of {len(models)} prices are older than 90 days (stale): check the source.\n"
        assert (warning in verbs.err) == stale  # a program's stdout stays JSON
        said = verbs("models", "--prices")
        assert (warning.replace("stale", "!") in said, f" {dated}! " in said) == (stale, stale)


def test_a_calendar_that_has_ended_is_told(verbs: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = load_catalogue().providers["deepseek"].schedule
    assert schedule is not None
    known = known_until(schedule)
    assert known is not None
    after = datetime(known.year, known.month, known.day, tzinfo=UTC) + timedelta(days=1, seconds=-schedule.offset_s)
    for instant, ended in ((after - timedelta(seconds=1), None), (after, known.isoformat())):
        at(monkeypatch, instant)
        assert {row["calendar_ended"] for row in rows_of(verbs.json("models", "--prices"), "deepseek-v4")} == {ended}
        warning = f"deepseek: its calendar of holidays ends on {known}"
        assert (warning in verbs.err) == (warning in verbs("models", "--prices")) == (ended is not None)
        assert {row["calendar_ended"] for row in rows_of(verbs.json("models", "--prices"), "kimi-k3")} == {None}


@pytest.mark.parametrize("words", [("models", "--prices"), ("models", "--all")])
@pytest.mark.parametrize("columns", [80, 100, 300])
def test_prices_fit_a_terminal_with_every_name_whole(verbs: Verbs, columns: int, words: tuple[str, ...]) -> None:
    lines = on_a_terminal(columns, "--config", str(verbs.path), *words)
    assert max(map(len, lines)) <= columns
    rows = verbs.json(*words)
    seen, provider = set(), ""
    (heading,) = (line.split() for line in lines if line.startswith("model "))
    assert {"model", "when", "what", "input", "output"} <= set(heading)
    for line in lines:
        first, second, *_ = [*line.split(), "", ""]
        if line.startswith("provider ") and second.endswith(":"):
            provider = second[:-1]
        seen.add((provider or second, first))
    assert seen >= {(row["provider"], row["model"]) for row in rows}
    said = " ".join(lines)
    assert ("Too wide for this terminal: " in said) == ("--json has everything" in said) == (columns < 300)
    assert ("https://api-docs.deepseek.com" in said) == (columns == 300)
    assert "older than 90 days" in said


def test_lines_of_one_model_can_be_told_apart_at_80_columns(verbs: Verbs) -> None:
    lines = on_a_terminal(80, "--config", str(verbs.path), "models", "--all")
    start = next(number for number, line in enumerate(lines) if line.startswith("provider deepseek:"))
    end = next(number for number, line in enumerate(lines) if line.startswith("provider moonshot-cn:"))
    rows = [tuple(line.split()) for line in lines[start + 1 : end]]
    assert len(rows) == len(set(rows)) > 20


# --- models --all -------------------------------------------------------------------------------------------------


def test_all_is_the_whole_catalogue_and_why_it_is_not_served(verbs: Verbs) -> None:
    rows = verbs.json("models", "--all")
    catalogue = load_catalogue()
    there = {(row["provider"], row["model"]) for row in rows}
    assert there >= {(name, id_) for name, provider in catalogue.providers.items() for id_ in provider.public_ids}
    assert all(bool(row["why_not"]) != row["served"] for row in rows)
    served = [row for row in rows if row["served"]]
    assert [{**row, "at": ""} for row in served] == [{**row, "at": ""} for row in verbs.json("models", "--prices")]
    why = {(row["provider"], row["model"], (row["cost"] or {}).get("currency")): row["why_not"] for row in rows}
    assert why["deepseek", "deepseek-v4", "USD"] == ""
    assert why["deepseek", "deepseek-v4", "CNY"] == "the provider bills in USD"
    assert why["qwen-intl", "qwen-max", "USD"] == "the provider is not switched on"
    unpriced = [row for row in rows if row["cost"] is None]
    assert all(row["why_not"] and row["input"] is row["price_id"] is None for row in unpriced)
    said = verbs("models", "--all").splitlines()
    (letter,) = (line[0] for line in said if line.endswith(": the provider bills in USD"))
    assert any(line.split()[:6] == ["deepseek-v4", "deepseek", "peak", "now", "not", letter] for line in said)
    assert any(line.split()[:5] == ["qwen-max", "qwen-intl", "always", "now", "off"] for line in said)
    numbers = {line.split()[1].rstrip(":") for line in said if line.startswith("source ")}
    assert {line.split()[-1] for line in said if line.startswith(("kimi-k3 ", "qwen-max "))} <= numbers


def test_all_tells_what_the_configuration_did(verbs: Verbs) -> None:
    verbs.path.write_text(
        TOML
        + '[models."deepseek-v4-pro"]\nprice = { input = "1", output = "1" }\n'
        + '[models."deepseek-v4-flash"]\nenabled = false\n'
        + '[providers.moonshot-intl]\napi_key_env = "K"\n'
        + "".join(f'[models."{id_}"]\nprovider = "moonshot-cn"\n' for id_ in shared("moonshot-cn", "moonshot-intl"))
    )
    rows = verbs.json("models", "--all")
    why = {(row["provider"], row["model"], row["cost"]["currency"]): row["why_not"] for row in rows if row["cost"]}
    assert why["deepseek", "deepseek-v4-pro", "USD"] == "the configuration has its own price"
    assert why["deepseek", "deepseek-v4-flash", "USD"] == "switched off in the configuration"
    assert why["moonshot-intl", "kimi-k3", "USD"] == "moonshot-cn serves it"
    assert why["moonshot-cn", "kimi-k3", "CNY"] == ""
    assert "retired" in why["moonshot-intl", "kimi-k2.5", "USD"]


def test_all_shows_a_price_of_the_catalogue_as_it_was_published(verbs: Verbs) -> None:
    verbs.path.write_text("")
    rows = verbs.json("models", "--all")
    assert {row["served"] for row in rows} == {False}
    assert {(row["currency"], row["fx"], row["markup"]) for row in rows} == {(None, None, None)}
    costs = [row["cost"] for row in rows_of(rows, "deepseek-v4") if row["cost"]["currency"] == "USD"]
    assert [(cost["input"], cost["cached_input"], cost["output"]) for cost in costs] == [
        ("1.32", "0.044", "3.96"),
        ("0.66", "0.022", "1.98"),
    ]


def shared(one: str, other: str) -> list[str]:
    found = load_catalogue().providers
    return [
        id_
        for id_, upstream in found[one].public_ids.items()
        if id_ in found[other].public_ids and not found[one].listings[upstream].disabled
    ]


# --- usage --------------------------------------------------------------------------------------------------------


def test_usage_takes_one_way_to_say_json(verbs: Verbs) -> None:
    verbs("account", "create", "acme")
    assert json.loads(verbs("usage", "--json", "--format", "json")) == []
    verbs("usage", "--json", "--format", "csv", code=2)
    assert "give --json or --format csv, not both" in verbs.err
