"""The configuration file: what it becomes, and how each mistake is named."""

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

import pydantic
import pydantic.fields
import pytest

from nexus_proxy import catalogue, config
from nexus_proxy.catalogue.loader import make_dialect
from nexus_proxy.config import Address, Config, Limits, Timeouts, load, resolve
from nexus_proxy.config import file as config_file
from nexus_proxy.core.money.prices import Rates, Tariff
from nexus_proxy.core.request.parameters import KNOWN_PARAMETERS
from nexus_proxy.core.wire.dialect import CERTAINTIES, Dialect, ErrorRule
from nexus_proxy.errors import ConfigError, ModelNotFound

SHIPPED = Path(__file__).parents[2] / "config" / "nexus.toml"
SECRET = "sk-canary-0123456789"
MODEL = {
    "provider": "local",
    "price": {"input": "0.10", "output": "0.40"},
    "context": 131072,
    "max_output": 8192,
}
LOCAL = {"dialect": "openai", "base_url": "http://127.0.0.1:8000/v1", "allow_private": True}


def read(text: str, folder: Path = Path("/etc/nexus"), **environ: str) -> Config:
    return resolve(tomllib.loads(text), folder, environ)


def mistakes(document: dict[str, Any], **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(document, Path("/etc/nexus"), environ)
    return str(caught.value).splitlines()


# --- what a file becomes ------------------------------------------------------------------------------------------


def test_no_file_is_the_defaults_with_nothing_switched_on() -> None:
    found = load(None, {})
    assert found.server == config.ServerConfig(
        Address("127.0.0.1", 8080), Address("127.0.0.1", 9090), Timeouts(), Limits()
    )
    assert (found.currency, dict(found.models), dict(found.providers), found.prices) == ("USD", {}, {}, ())
    assert {(p.name, p.rpm, p.rung, p.min_paid_nano) for p in found.plans.values()} == {
        ("free", 10, True, 0),
        ("paid", 60, True, 5_000_000_000),
    }


def test_the_shipped_file_loads_with_an_empty_environment() -> None:
    found = load(SHIPPED, {})
    assert not found.models
    assert found.server == load(None, {}).server
    assert found.ledger.path == SHIPPED.parent / "nexus.db"


def commented_in() -> str:
    return re.sub(r"(?m)^# ?(\[|[a-z_]+ = )", r"\1", SHIPPED.read_text())


def test_the_shipped_file_with_everything_commented_in_loads_too(tmp_path: Path) -> None:
    text = commented_in().replace('api_key_file = "secrets/deepseek"', "").replace("offset_s = 28800", "")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ca.pem").write_text("")
    found = read(text, tmp_path, DEEPSEEK_API_KEY=SECRET, DASHSCOPE_API_KEY=SECRET, MOONSHOT_API_KEY=SECRET)
    assert {"deepseek-v4", "deepseek-v4-flash", "qwen-max", "kimi-k3.1-pro", "my-model"} <= set(found.models)


def undocumented(shape: type[pydantic.BaseModel], tables: list[dict[str, Any]], path: str = "") -> Iterator[str]:
    """Walk the shape beside the file: the paths of keys that no table of that shape has."""
    for key, info in shape.model_fields.items():
        values = [table[key] for table in tables if key in table]
        if not values:
            yield f"{path}{key}"
        pending, nested = [info.annotation], None
        while pending:
            annotation = pending.pop()
            if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
                nested = annotation
            pending.extend(get_args(annotation))
        if nested is not None:
            below = [
                entry
                for value in values
                for entry in (value if isinstance(value, list) else value.values() if is_named(info) else [value])
            ]
            yield from undocumented(nested, below, f"{path}{key}.")


def is_named(info: pydantic.fields.FieldInfo) -> bool:
    return get_origin(info.annotation) is dict


def test_every_key_of_the_files_shape_is_in_the_shipped_file() -> None:
    assert list(undocumented(config_file.File, [tomllib.loads(commented_in())])) == []


def test_a_key_that_the_shipped_file_lacks_is_found() -> None:
    text = commented_in().replace("output_max = 200", "").replace("drains = 256", "").replace("retry_stale = true", "")
    assert set(undocumented(config_file.File, [tomllib.loads(text)])) == {
        "server.limits.drains",
        "providers.retry_stale",
        "models.price.tiers.output_max",
    }


@pytest.mark.parametrize(("shape", "become"), [(config_file.Timeouts, Timeouts), (config_file.Limits, Limits)])
def test_timeouts_and_limits_have_the_same_keys_in_the_file(shape: type[pydantic.BaseModel], become: type[Any]) -> None:
    assert list(shape.model_fields) == [field.name for field in dataclasses.fields(become)]


def test_one_timeout_and_one_limit_leave_the_others() -> None:
    found = read("[server]\ntimeouts.silence_s = 7\nlimits.drains = 0")
    assert (found.server.timeouts, found.server.limits) == (Timeouts(silence_s=7.0), Limits(drains=0))


def test_f12_without_secrets_none_is_looked_for(tmp_path: Path) -> None:
    wanting = {
        "mine": {**LOCAL, "api_key_env": "KEY"},
        "theirs": {**LOCAL, "api_key_file": "no", "ca_file": "no.pem"},
    }
    document = {"providers": wanting, "models": {"m": {**MODEL, "provider": "theirs"}}}
    found = resolve(document, tmp_path, {"KEY": SECRET}, secrets=False)
    assert [provider.api_key for provider in found.providers.values()] == ["", ""]
    assert list(found.models) == ["m"]
    (tmp_path / "no").write_text(SECRET)
    (tmp_path / "no.pem").write_text("")
    assert resolve(document, tmp_path, {"KEY": SECRET}).providers["mine"].api_key == SECRET
    with pytest.raises(ConfigError, match=r"providers\.deepseek: expected api_key_env or api_key_file"):
        resolve({"providers": {"deepseek": {}}}, tmp_path, {}, secrets=False)


def test_a_model_is_found_if_it_is_served_and_allowed() -> None:
    found = resolve({"providers": {"local": LOCAL}, "models": {"org/my": MODEL}}, Path("/etc/nexus"), {})
    for allowed in (None, frozenset({"org/my"})):
        assert found.find_model(allowed, "org/my") is found.models["org/my"]
    for allowed, model_id in ((None, "other"), (frozenset({"other"}), "other"), (frozenset[str](), "org/my")):
        with pytest.raises(ModelNotFound) as caught:
            found.find_model(allowed, model_id)
        assert caught.value.param == "model"


def test_the_example_of_an_own_provider() -> None:
    found = resolve({"providers": {"local": LOCAL}, "models": {"org/my": MODEL}}, Path("/etc/nexus"), {})
    model, provider = found.models["org/my"], found.providers["local"]
    assert (model.id, model.provider, model.upstream) == ("org/my", "local", "org/my")
    assert (model.context, model.max_output, model.default_output) == (131072, 8192, 4096)
    assert model.tariff.peak.tiers[0].rates == Rates(100_000, 100_000, 100_000, 400_000, 400_000)
    assert (provider.base_url, provider.api_key, provider.allow_private) == ("http://127.0.0.1:8000/v1", "", True)
    assert (provider.in_flight_max, provider.retry_stale, provider.on_disconnect) == (1000, True, "drain")
    assert provider.dialect.ask_usage


def test_ask_usage_overrides_the_dialect() -> None:
    found = resolve({"providers": {"local": {**LOCAL, "ask_usage": False}}}, Path("/"), {})
    assert not found.providers["local"].dialect.ask_usage


def test_a_known_provider_is_switched_on_by_its_secret_alone() -> None:
    found = read('[providers.deepseek]\napi_key_env = "K"', K=f"{SECRET}\n")
    assert found.providers["deepseek"].api_key == SECRET
    assert found.models["deepseek-v4"].upstream == "deepseek-v4-pro"
    assert found.models["deepseek-v4-flash"].upstream == "deepseek-flash"
    assert {version.model for version in found.prices} == set(found.models)
    assert len({version.price.price_id for version in found.prices}) == len(found.prices) == 2 * len(found.models)


def test_a_secret_may_stand_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET}\n")
    (tmp_path / "n.toml").write_text('[providers.deepseek]\napi_key_file = "key"\n[ledger]\nurl = "sqlite:d/x.db"')
    found = load(tmp_path / "n.toml", {})
    assert found.providers["deepseek"].api_key == SECRET
    assert found.ledger.path == tmp_path / "d" / "x.db"


def test_f2_a_secret_is_in_no_repr_and_in_no_message() -> None:
    found = read('[providers.deepseek]\napi_key_env = "K"', K=SECRET)
    assert SECRET not in repr(found)
    lines = mistakes({"providers": {"deepseek": {"api_key": SECRET, "api_key_env": 5}}})
    assert lines == [
        "providers.deepseek.api_key: unknown key",
        "providers.deepseek.api_key_env: expected a valid string",
    ]
    assert SECRET not in "".join(mistakes({"providers": {"deepseek": {"api_key_env": "K"}}}, K=f"{SECRET}\x01"))


def test_the_billing_currency_picks_the_price_list_unless_the_entry_says() -> None:
    deepseek = '[providers.deepseek]\napi_key_env = "K"\n'
    usd = read(deepseek, K="k").models["deepseek-v4"].tariff
    cny = read(deepseek + 'currency = "CNY"\n[billing]\nfx = { CNY = "0.1389" }', K="k").models["deepseek-v4"].tariff
    own = read(deepseek + '[billing]\ncurrency = "CNY"', K="k").models["deepseek-v4"].tariff
    assert [t.peak.cost_currency for t in (usd, cny, own)] == ["USD", "CNY", "CNY"]
    assert usd.peak.tiers[0].rates.output == 3_960_000
    assert cny.peak.tiers[0].rates.output == 3_750_300  # 27 × 0.1389
    assert cny.peak.cost_tiers[0].rates.output == own.peak.tiers[0].rates.output == 27_000_000
    assert usd.off_peak is not None
    assert usd.off_peak.tiers[0].rates.output == 1_980_000


def test_the_entry_of_a_model_overrides_the_catalogue_key_by_key() -> None:
    document = {
        "providers": {"deepseek": {"api_key_env": "K"}},
        "models": {
            "deepseek-v4": {"max_output": 1000},
            "alias": {"provider": "deepseek", "upstream": "deepseek-flash"},
            "deepseek-flash": {"enabled": False},
        },
    }
    found = resolve(document, Path("/"), {"K": "k"}).models
    assert (found["deepseek-v4"].max_output, found["deepseek-v4"].default_output) == (1000, 1000)
    assert found["deepseek-v4"].context == 1_000_000
    assert found["alias"].tariff.peak.tiers == found["deepseek-v4-flash"].tariff.peak.tiers
    assert "deepseek-flash" not in found


def test_a_price_of_its_own_serves_a_model_whose_known_price_is_withheld() -> None:
    listings = catalogue.load_catalogue().providers["siliconflow-cn"].listings
    known = next(listing for listing in listings.values() if not listing.prices)
    assert known.disabled
    document: dict[str, Any] = {
        "billing": {"fx": {"CNY": "0.14"}},
        "providers": {"siliconflow-cn": {"api_key_env": "K"}},
    }
    assert known.upstream not in resolve(document, Path("/"), {"K": "k"}).models
    document["models"] = {known.upstream: {"price": {"input": "1", "output": "2"}}}
    model = resolve(document, Path("/"), {"K": "k"}).models[known.upstream]
    assert (model.provider, model.context) == ("siliconflow-cn", known.facts["context"])
    document["models"] = {known.upstream: {}}
    assert mistakes(document, K="k") == [
        f'models."{known.upstream}".provider: missing, and no provider that is switched on has the model'
    ]


# --- dialects and schedules of the file's own -----------------------------------------------------------------------


def dialect_of(**entry: Any) -> Dialect:
    document = {"dialects": {"mine": entry}, "providers": {"local": {**LOCAL, "dialect": "mine"}}}
    return resolve(document, Path("/"), {}).providers["local"].dialect


def test_a_dialect_of_the_files_own_that_says_nothing_is_the_one_it_is_based_on() -> None:
    known = catalogue.load_catalogue().dialects
    assert dataclasses.replace(dialect_of(), name="openai") == known["openai"]
    for name in known:
        assert dataclasses.replace(dialect_of(based_on=name), name=name) == known[name]


def test_a_dialect_of_the_files_own_goes_over_and_before_the_one_it_is_based_on() -> None:
    found = dialect_of(
        based_on="minimax",
        ask_usage=True,
        usage={"at": ["meta.tokens"], "prompt": ["in.all", "asked"], "in_choice": True},
        reasoning=["thoughts"],
        failure=[{"path": "result.state", "ok": ["fine", 0, True]}],
        errors=[{"code": "upstream_no_funds", "marks": ["broke", 17], "statuses": [200], "text": "TOP up"}],
        limit_parameter="max_tokens",
        limit_covers_thinking=False,
        budget_parameter="think_at_most",
        refused_parameters=["enable_magic"],
        renamed_parameters={"seed": "random_seed"},
        certainty="reported",
        matters="m",
        notes="n",
    )
    base = catalogue.load_catalogue().dialects["minimax"]
    assert (found.name, found.ask_usage, found.limit_parameter) == ("mine", True, "max_tokens")
    assert (found.limit_covers_thinking, found.budget_parameter) == (False, "think_at_most")
    assert (found.usage.at, found.usage.in_choice) == ((("meta", "tokens"),), True)
    assert found.usage.prompt == (("in", "all"), ("asked",))
    assert found.reasoning_names == {"thoughts", "reasoning_details", "reasoning_content", "reasoning"}
    assert [failure.path for failure in found.failure] == [("result", "state"), ("base_resp", "status_code")]
    assert found.failure[0].ok == {"fine", "0", "true"}
    assert found.errors[0] == ErrorRule("upstream_no_funds", frozenset({200}), frozenset({"broke", "17"}), "top up")
    assert found.errors[1:] == base.errors
    assert found.barred_parameters == {"enable_magic", "random_seed"}
    assert (found.certainty, found.matters, found.notes) == ("reported", "m", "n")


def test_every_dialect_of_the_catalogue_could_stand_in_the_file() -> None:
    raw = json.loads(resources.files("nexus_proxy.catalogue").joinpath("dialects.json").read_text())
    for name, entry in raw.items():
        shape = config_file.Dialect.model_validate(entry)
        again = make_dialect(name, shape.model_dump(exclude_none=True))
        assert again == catalogue.load_catalogue().dialects[name] == make_dialect(name, entry)
        assert entry["certainty"] in CERTAINTIES
        assert entry["notes"]
        assert entry["matters"].endswith(".")
    assert get_args(config_file.Dialect.model_fields["certainty"].annotation)[0].__args__ == CERTAINTIES


def test_a_known_provider_may_be_given_a_dialect_of_the_files_own() -> None:
    text = '[providers.deepseek]\napi_key_env = "K"\ndialect = "later"\n[dialects.later]\nbased_on = "deepseek"\n'
    found = read(text + "ask_usage = true", K="k")
    assert found.providers["deepseek"].dialect.ask_usage
    assert found.models["deepseek-v4"].dialect is found.providers["deepseek"].dialect


def test_a_limit_may_be_renamed_away_and_a_budget_may_have_our_name() -> None:
    found = dialect_of(renamed_parameters={"max_tokens": "a", "n": "b"}, budget_parameter="thinking_budget")
    assert found.renamed_parameters == (("max_tokens", "a"), ("n", "b"))
    assert found.budget_parameter == "thinking_budget"
    assert {"model", "messages", "stream", "stream_options", *get_args(config_file.LimitParameter)} <= KNOWN_PARAMETERS


def test_e19_under_a_dialect_of_the_files_own_a_known_model_is_held_for_as_that_says() -> None:
    def limits(*lines: str, dialect: str = "mine") -> tuple[bool, int]:
        text = ["[providers.deepseek]", 'api_key_env = "K"', f'dialect = "{dialect}"', *lines]
        model = read("\n".join([*text, "[dialects.mine]", 'based_on = "deepseek"', more]), K="k").models["deepseek-v4"]
        return model.limit_covers_thinking, model.thinking_max

    more = "limit_covers_thinking = false"
    context = read('[providers.deepseek]\napi_key_env = "K"', K="k").models["deepseek-v4"].context
    assert limits() == (False, context)  # the catalogue says nothing of thinking, for its own dialect has it covered
    assert limits("[models.deepseek-v4]", "thinking_max = 9") == (False, 9)
    assert limits("[models.deepseek-v4]", "limit_covers_thinking = true") == (True, 0)
    assert limits(dialect="deepseek") == (True, 0)
    more = ""
    assert limits() == (True, 0)


def test_a_model_takes_its_limit_from_the_dialect_unless_its_entry_says() -> None:
    def limits(dialect: str, **entry: Any) -> tuple[str, bool, int]:
        document = {"providers": {"local": {**LOCAL, "dialect": dialect}}, "models": {"m": {**MODEL, **entry}}}
        model = resolve(document, Path("/"), {}).models["m"]
        return model.limit_parameter, model.limit_covers_thinking, model.thinking_max

    assert limits("openai") == ("max_tokens", True, 0)
    assert limits("doubao") == ("max_completion_tokens", True, 0)
    assert limits("doubao", limit_parameter="max_tokens") == ("max_tokens", True, 0)
    assert limits("doubao", limit_covers_thinking=False, thinking_max=9) == ("max_completion_tokens", False, 9)
    assert limits("stepfun") == ("max_tokens", False, 131072)  # no model thinks longer than its context
    assert limits("stepfun", thinking_max=9) == ("max_tokens", False, 9)
    assert limits("stepfun", thinking_max=0) == ("max_tokens", True, 0)
    assert limits("stepfun", limit_covers_thinking=True) == ("max_tokens", True, 0)


NIGHT = {"input": "2", "output": "8", "off_peak": {"input": "1", "output": "3"}}


def night(schedule: dict[str, Any], **price: Any) -> Tariff:
    document = {
        "providers": {"local": {**LOCAL, "schedule": schedule}},
        "models": {"m": {**MODEL, "price": {**NIGHT, **price}}},
    }
    return resolve(document, Path("/"), {}).models["m"].tariff


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize("offset", [{"offset": "+08:00"}, {"offset_s": 28_800}])
@pytest.mark.parametrize(
    ("instant", "dear"),
    [
        ("2027-03-01T00:59:59Z", False),  # a Monday
        ("2027-03-01T01:00:00Z", True),
        ("2027-03-01T03:59:59Z", True),
        ("2027-03-01T04:00:00Z", False),
        ("2027-03-01T15:59:59Z", True),
        ("2027-03-01T16:00:00Z", False),
        ("2027-03-02T02:00:00Z", False),  # a holiday
        ("2027-03-05T02:00:00Z", False),  # the last of some
        ("2027-03-06T02:00:00Z", False),  # a Saturday
        ("2027-03-07T02:00:00Z", True),  # a Sunday that is worked
    ],
)
def test_a_schedule_of_the_files_own(offset: dict[str, Any], instant: str, dear: bool) -> None:
    days = ["2027-03-02", ["2027-03-04", "2027-03-05"]]
    peak = [["09:00", "12:00"], ["22:00", "24:00"]]
    tariff = night({**offset, "peak": peak, "holidays": days, "working_days": ["2027-03-07"]})
    price = tariff.price_at(at(instant))
    assert price is (tariff.peak if dear else tariff.off_peak)
    assert price.tiers[0].rates.output == (8_000_000 if dear else 3_000_000)


def test_a_schedule_may_use_the_calendar_of_the_catalogue_and_add_to_it() -> None:
    schedule = {"offset": "+08:00", "peak": [["00:00", "24:00"]], "holidays": "china", "working_days": ["2026-11-28"]}
    tariff = night(schedule)
    known = catalogue.load_catalogue().calendars["china"]
    assert tariff.schedule is not None
    assert tariff.schedule.holidays == known.holidays
    assert tariff.schedule.working_days > known.working_days
    assert tariff.price_at(at("2026-11-28T12:00:00+08:00")) is tariff.peak
    assert tariff.price_at(at("2026-11-29T12:00:00+08:00")) is tariff.off_peak
    assert tariff.price_at(at("2026-10-01T12:00:00+08:00")) is tariff.off_peak


@pytest.mark.parametrize(
    ("offset", "seconds"), [("+08:00", 28_800), ("-03:30", -12_600), ("+00:00", 0), ("-14:00", -50_400)]
)
def test_an_offset_is_a_clock_east_or_west_of_utc(offset: str, seconds: int) -> None:
    schedule = night({"offset": offset, "peak": [["09:00", "10:00"]]}).schedule
    assert schedule is not None
    assert schedule.offset_s == seconds


def test_toml_dates_are_days_too() -> None:
    text = """
    [providers.deepseek]
    api_key_env = "K"
    schedule = { offset = "+08:00", peak = [["09:00", "10:00"]], holidays = [2027-03-02, [2027-03-04, "2027-03-05"]] }
    """
    model = read(text, K="k").models["deepseek-v4"]
    assert model.tariff.schedule is not None
    assert len(model.tariff.schedule.holidays) == 3  # in place of the catalogue's
    assert not model.tariff.schedule.is_peak(at("2027-03-01T03:00:00Z"))
    assert model.tariff.schedule.is_peak(at("2027-03-01T01:00:00Z"))


def test_an_off_peak_price_fills_its_gaps_like_a_tier() -> None:
    schedule = {"offset": "+00:00", "peak": [["09:00", "10:00"]]}
    tariff = night(schedule, cached_input="1", off_peak={"input": "1"})
    assert tariff.off_peak is not None
    assert tariff.off_peak.tiers[0].rates == Rates(1_000_000, 500_000, 1_000_000, 4_000_000, 4_000_000)
    assert len({price.price_id for price in tariff.prices()}) == 2


def test_a_disabled_listing_is_served_only_if_the_file_names_it() -> None:
    text = '[providers.moonshot-intl]\napi_key_env = "K"\n'
    assert "kimi-k2.5" not in read(text, K="k").models
    assert "kimi-k2.5" in read(text + '[models."kimi-k2.5"]', K="k").models


def test_two_providers_of_one_id_are_an_error_that_names_both_unless_one_is_picked() -> None:
    both = {"providers": {name: {"api_key_env": "K"} for name in ("qwen-intl", "qwen-cn")}}
    both["billing"] = {"fx": {"CNY": "0.14"}}
    lines = mistakes(both, K="k")
    assert "models.qwen-max: qwen-intl and qwen-cn both serve it; expected provider = one of them" in lines
    picked = {id_: {"provider": "qwen-cn"} for id_ in ("qwen-max", "qwen-plus", "qwen-turbo", "qwen3.8-max")}
    found = resolve({**both, "models": picked}, Path("/"), {"K": "k"})
    assert found.models["qwen-max"].provider == "qwen-cn"
    assert found.models["qwen3-max"].provider == "qwen-intl"


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_and_none_twice() -> None:
    document = {
        "servr": {},
        "plans": {"free": {"rung": True, "rpm": "10"}},
        "billing": {"markup": 1.1},
        "providers": {"deepseek": {"api_key_env": "NOPE"}, "moonshot-cn": {"api_key_env": "K"}},
        "models": {"x": {"provider": "deepseek"}},
    }
    assert mistakes(document, K="") == [
        'billing.markup: expected a decimal in quotes, such as "0.10"; a bare number could not be read exactly',
        "plans.free.rpm: expected a valid integer",
        "providers.deepseek.api_key_env: the environment has no variable NOPE",
        "providers.moonshot-cn.api_key_env: the secret is empty",
        "servr: unknown key",
    ]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"server": {"listen": "8080"}}, 'server.listen: expected "host:port"'),
        ({"server": {"listen": "::1:8080"}}, 'server.listen: expected "host:port"'),
        ({"server": {"listen": "a:70000"}}, "server.listen: expected a port"),
        ({"server": {"listen": "a:1", "admin_listen": "a:1"}}, "server.admin_listen: expected another"),
        ({"server": {"timeouts": {"connect_s": 0}}}, "server.timeouts.connect_s: expected greater than 0"),
        ({"server": {"timeouts": {"connect_s": float("inf")}}}, "server.timeouts.connect_s: expected"),
        ({"server": {"timeouts": {"connect_s": True}}}, "server.timeouts.connect_s: expected a valid number"),
        ({"server": {"limits": {"bodies_bytes": 1024}}}, "server.limits.bodies_bytes: expected at least"),
        ({"server": 3}, "server: expected a valid dictionary"),
        ({"ledger": {"url": "postgresql://h/d"}}, 'ledger.url: expected "sqlite:path"'),
        ({"ledger": {"url": "sqlite::memory:"}}, 'ledger.url: expected "sqlite:"'),
        ({"limiter": {"url": "redis://h"}}, "limiter.url: expected 'memory:'"),
        ({"billing": {"currency": "usd"}}, "billing.currency: expected a currency's three capital"),
        ({"billing": {"currency": "XXX"}}, "billing.currency: expected a currency's three capital"),
        ({"billing": {"fx": {"XTS": "1"}}}, "billing.fx.XTS: expected a currency's three capital"),
        ({"billing": {"fx": {"CNY": 0.14}}}, "billing.fx.CNY: expected a decimal in quotes"),
        ({"billing": {"fx": {"CNY": "0"}}}, "billing.fx.CNY: expected a decimal above 0"),
        ({"billing": {"markup": "1e3"}}, "billing.markup: expected a decimal"),
        ({"plans": {"a": {"rpm": 5}}}, "plans: expected exactly one rung without a threshold"),
        ({"plans": {n: {"rpm": 5, "rung": True} for n in "ab"}}, "plans: expected exactly one rung"),
        ({"plans": {"a": {"rpm": 0, "rung": True}}}, "plans.a.rpm: expected greater than or equal to 1"),
        ({"plans": {"a": {"rung": True}}}, "plans.a.rpm: missing"),
        ({"plans": {"a": {"rpm": 5, "rung": True}, "b": {"rpm": 5, "min_paid": "1"}}}, "plans.b: expected rung = true"),
        (
            {"plans": {"a": {"rpm": 5, "rung": True}, "b": {"rpm": 4, "rung": True, "min_paid": "1"}}},
            "plans.b.rpm: expected at least 5, as a below it",
        ),
        (
            {
                "plans": {
                    "a": {"rpm": 5, "rung": True},
                    "b": {"rpm": 6, "rung": True, "min_paid": "1"},
                    "c": {"rpm": 7, "rung": True, "min_paid": "1.00"},
                }
            },
            "plans.c: expected other thresholds than those of b",
        ),
        ({"providers": {"deepseek": {}}}, "providers.deepseek: expected api_key_env or api_key_file"),
        (
            {"providers": {"deepseek": {"api_key_env": "K", "api_key_file": "f"}}},
            "providers.deepseek: give one of api_key_env and api_key_file, not both",
        ),
        ({"providers": {"deepseek": {"api_key_file": "no"}}}, "providers.deepseek.api_key_file: cannot be read"),
        (
            {"providers": {"deepseek": {"api_key_env": "K", "currency": "EUR"}}},
            "providers.deepseek.currency: expected one of CNY, USD",
        ),
        ({"providers": {"mine": {"dialect": "openai"}}}, "providers.mine.base_url: missing"),
        (
            {"providers": {"mine": {}}},
            "providers.mine: no such provider in the catalogue. A provider of your own needs",
        ),
        (
            {"providers": {"deepsek": {}}},
            "providers.deepsek: no such provider in the catalogue; did you mean deepseek?",
        ),
        ({"providers": {"mine": {**LOCAL, "dialect": "x"}}}, "providers.mine.dialect: expected one of openai"),
        ({"providers": {"mine": {**LOCAL, "ca_file": "no.pem"}}}, "providers.mine.ca_file: no such file"),
        ({"providers": {"qwen-cn": {"api_key_env": "K"}}}, "billing.fx.CNY: missing"),
        ({"models": {"m": {}}}, "models.m.provider: missing"),
        ({"models": {"m": {**MODEL}}}, "models.m.provider: expected a provider that is switched on"),
        ({"models": {"m\n": {}}}, 'models."m\\n": expected text'),
    ],
)
def test_a_mistake_is_named_by_its_path(document: dict[str, Any], line: str) -> None:
    assert "\n".join(mistakes(document, K="k")).startswith(line)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"ask": True}, "dialects.mine.ask: unknown key"),
        ({"ask_usage": 1}, "dialects.mine.ask_usage: expected a valid boolean"),
        ({"based_on": "opnai"}, "dialects.mine.based_on: expected one of openai"),
        ({"usage": {"promt": []}}, "dialects.mine.usage.promt: unknown key"),
        ({"usage": {"prompt": "in.all"}}, "dialects.mine.usage.prompt: expected a valid list"),
        ({"usage": {"prompt": ["in..all"]}}, "dialects.mine.usage.prompt.0: expected text that matches"),
        ({"usage": {"at": ["x", "choices.0.usage"]}}, "dialects.mine.usage.at.1: expected a place outside"),
        ({"failure": [{"ok": [0]}]}, "dialects.mine.failure.0.path: missing"),
        ({"failure": [{"path": "a", "ok": 0}]}, "dialects.mine.failure.0.ok: expected a valid list"),
        (
            {"errors": [{"code": "no_funds", "marks": ["x"]}]},
            "dialects.mine.errors.0.code: expected 'upstream_no_funds'",
        ),
        ({"errors": [{"code": "upstream_auth"}]}, "dialects.mine.errors.0: expected statuses, marks or text"),
        ({"errors": [{"code": "upstream_auth", "statuses": [42]}]}, "dialects.mine.errors.0.statuses.0: expected"),
        ({"limit_parameter": "max"}, "dialects.mine.limit_parameter: expected 'max_tokens' or"),
        ({"renamed_parameters": {"messages": "m"}}, "dialects.mine.renamed_parameters.messages: expected a parameter"),
        ({"renamed_parameters": {"seed": "x", "n": "X"}}, "dialects.mine: expected renamed_parameters to name each"),
        ({"renamed_parameters": {"seed": "user_", "User_": "x"}}, "dialects.mine: expected renamed_parameters to name"),
        *(
            ({"renamed_parameters": {"seed": theirs}}, "dialects.mine.renamed_parameters.seed: expected a name that")
            for theirs in sorted({*KNOWN_PARAMETERS, "N", "Max_Tokens", "Enable_Search"})
        ),
        (
            {"based_on": "hunyuan", "renamed_parameters": {"seed": "Enable_Multimedia"}},
            "dialects.mine.renamed_parameters.seed: expected a name that refused_parameters",
        ),
        *(
            ({"budget_parameter": name}, "dialects.mine.budget_parameter: expected a name that")
            for name in sorted({*KNOWN_PARAMETERS, "N", "Thinking_Budget"} - {"thinking_budget"})
        ),
        ({"refused_parameters": ["model"]}, "dialects.mine.refused_parameters.0: expected a parameter"),
        ({"certainty": "sure"}, "dialects.mine.certainty: expected 'captured', 'documented'"),
        (5, "dialects.mine: expected a valid dictionary"),
    ],
)
def test_a_mistake_in_a_dialect_is_named_by_its_path_and_makes_no_other(entry: Any, line: str) -> None:
    document = {
        "dialects": {"mine": entry},
        "providers": {"local": {**LOCAL, "dialect": "mine"}},
        "models": {"m": MODEL},
    }
    (found,) = mistakes(document)
    assert found.startswith(line)


def test_a_dialect_of_the_catalogue_keeps_its_name() -> None:
    assert mistakes({"dialects": {"openai": {}}})[0].startswith("dialects.openai: expected another name")
    assert mistakes({"dialects": 5}) == ["dialects: expected a valid dictionary"]


CLOCK = {"offset": "+08:00", "peak": [["09:00", "12:00"]]}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"offset": None}, 'providers.local.schedule: expected one of offset, such as "+08:00", and offset_s'),
        ({"offset_s": 28800}, "providers.local.schedule: expected one of offset"),
        ({"offset": "8"}, "providers.local.schedule.offset: expected text that matches"),
        ({"offset": None, "offset_s": 86400}, "providers.local.schedule.offset_s: expected less than"),
        ({"peak": None}, "providers.local.schedule.peak: missing"),
        ({"peak": []}, "providers.local.schedule.peak: "),
        ({"peak": [["9:00", "12:00"]]}, "providers.local.schedule.peak.0.0: expected a time of the day"),
        ({"peak": [["09:00", "24:01"]]}, "providers.local.schedule.peak.0.1: expected a time of the day"),
        ({"peak": [["09:60", "12:00"]]}, "providers.local.schedule.peak.0.0: expected a time of the day"),
        ({"peak": [["22:00", "02:00"]]}, "providers.local.schedule.peak.0: expected an end behind the start"),
        ({"peak": [["09:00", "09:00"]]}, "providers.local.schedule.peak.0: expected an end behind the start"),
        ({"peak": [["09:00"]]}, "providers.local.schedule.peak.0: "),
        ({"holidays": "chna"}, "providers.local.schedule.holidays: expected one of china, or a list of days"),
        ({"holidays": 5}, "providers.local.schedule.holidays: expected the name of a calendar"),
        ({"holidays": ["2027-02-30"]}, "providers.local.schedule.holidays: expected a day"),
        ({"holidays": ["20270201"]}, "providers.local.schedule.holidays: expected a day"),
        ({"holidays": [["2027-02-02"]]}, "providers.local.schedule.holidays: expected days, or pairs"),
        ({"holidays": [["2027-02-02", "2027-02-01"]]}, "providers.local.schedule.holidays: expected each last day"),
        ({"holidays": [["2027-02-02", "9999-02-01"]]}, "providers.local.schedule.holidays: expected each last day"),
        ({"working_days": [5]}, "providers.local.schedule.working_days.0: expected a day"),
        ({"calendar": "china"}, "providers.local.schedule.calendar: unknown key"),
    ],
)
def test_a_mistake_in_a_schedule_is_named_by_its_path_and_makes_no_other(change: dict[str, Any], line: str) -> None:
    schedule = {key: value for key, value in {**CLOCK, **change}.items() if value is not None}
    document = {
        "providers": {"local": {**LOCAL, "schedule": schedule}},
        "models": {"m": {**MODEL, "price": NIGHT}},
    }
    (found,) = mistakes(document)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"price": None}, "models.m.price: missing"),
        ({"price": {"input": 1, "output": "1"}}, "models.m.price.input: expected a decimal in quotes"),
        ({"price": {"input": "-1", "output": "1"}}, "models.m.price.input: expected a decimal that is not negative"),
        ({"price": {"input": "1"}}, "models.m.price.output: missing"),
        ({"price": {"input": "1000001", "output": "1"}}, "models.m.price: expected at most 1000000 per million"),
        ({"price": {"input": "1", "output": "1", "currency": "CNY"}}, "billing.fx.CNY: missing: local prices m in it"),
        (
            {"price": {"input": "1", "output": "1", "tiers": [{"input": "1", "input_max": 9}]}},
            "models.m.price: expected the last tier to have no input_max",
        ),
        ({"price": NIGHT}, "models.m.price.off_peak: expected a schedule of the provider: providers.local.schedule"),
        ({"price": {**NIGHT, "off_peak": {"output": "1"}}}, "models.m.price.off_peak.input: missing"),
        ({"price": {**NIGHT, "off_peak": {"input": 1}}}, "models.m.price.off_peak.input: expected a decimal in quotes"),
        ({"price": {**NIGHT, "off_peak": {"input": "1", "tiers": []}}}, "models.m.price.off_peak.tiers: unknown key"),
        ({"context": None}, "models.m.context: missing"),
        ({"context": 100}, "models.m.max_output: expected at most the context, 100"),
        ({"max_output": 10**8}, "models.m.max_output: expected less than or equal to 10000000"),
        ({"default_output": 8193}, "models.m.default_output: expected at most 8192"),
        ({"limit_covers_thinking": False}, "models.m.thinking_max: expected a bound"),
        ({"limit_parameter": "max"}, "models.m.limit_parameter: expected 'max_tokens' or"),
    ],
)
def test_a_mistake_in_a_model_is_named_by_its_path(change: dict[str, Any], line: str) -> None:
    entry = {key: value for key, value in {**MODEL, **change}.items() if value is not None}
    assert mistakes({"providers": {"local": LOCAL}, "models": {"m": entry}})[0].startswith(line)


def test_a_wrong_key_of_a_model_hides_no_other_and_makes_none() -> None:
    def of(**change: Any) -> list[str]:
        return mistakes({"providers": {"local": LOCAL}, "models": {"m": {**MODEL, **change}}})

    bare = {"input": 0.1, "output": "1"}
    assert [line.split(":")[0] for line in of(price=bare, context=100)] == [
        "models.m.max_output",
        "models.m.price.input",
    ]
    assert [line.split(":")[0] for line in of(context="100")] == ["models.m.context"]
    assert [line.split(":")[0] for line in of(max_output=0, default_output=9000)] == ["models.m.max_output"]
    assert [line.split(":")[0] for line in of(provider=5)] == ["models.m.provider"]
    assert of(colour=1) == ["models.m.colour: unknown key"]
    assert mistakes({"models": {"m": 5}}) == ["models.m: expected a valid dictionary or instance of Model"]


@pytest.mark.parametrize("secret", ["", "  ", "\n"])
def test_f22_an_empty_secret_is_refused(secret: str) -> None:
    lines = mistakes({"providers": {"deepseek": {"api_key_env": "K"}}}, K=secret)
    assert lines == ["providers.deepseek.api_key_env: the secret is empty"]


@pytest.mark.parametrize("secret", ["a b", "a\r\nX-Evil: 1", "ключ"])
def test_a_secret_that_no_header_can_carry_is_refused(secret: str) -> None:
    assert "no header can carry" in mistakes({"providers": {"deepseek": {"api_key_env": "K"}}}, K=secret)[0]


def test_f7_a_private_base_url_is_refused_with_its_path() -> None:
    lines = mistakes({"providers": {"x": {"dialect": "openai", "base_url": "https://169.254.169.254/v1"}}})
    assert lines[0].startswith("providers.x.base_url: 169.254.169.254 is a private")


def test_what_is_no_toml_or_no_file_says_so(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[server\n")
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        load(bad, {})
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load(tmp_path / "none.toml", {})


@pytest.mark.parametrize("key", ["x", "server.listen", "plans.a.rpm", "providers.local.schedule.holidays", "models.m"])
@pytest.mark.parametrize("depth", [50, 300, 900, 3_000, 100_000])
def test_what_is_nested_too_deep_is_a_mistake_of_the_file(tmp_path: Path, key: str, depth: int) -> None:
    for before, after in (("[", "]"), ("{a=", "}"), ("[{a=", "}]")):
        deep = tmp_path / "deep.toml"
        deep.write_text(f"{key} = {before * depth}{1}{after * depth}\n")
        with pytest.raises(ConfigError, match=r"deep\.toml"):
            load(deep, {})
    deep.write_text(f"{key}{'.a' * min(depth, 3_000)} = 1\n")
    with pytest.raises(ConfigError, match=r"deep\.toml"):
        load(deep, {})


def test_the_same_content_has_the_same_price_id_and_a_change_another() -> None:
    def ids(markup: str) -> list[str]:
        text = f'[providers.deepseek]\napi_key_env = "K"\n[billing]\nmarkup = "{markup}"'
        return [version.price.price_id for version in read(text, K="k").prices]

    assert ids("1.0") == ids("1.0")
    assert set(ids("1.0")).isdisjoint(ids("1.1"))
