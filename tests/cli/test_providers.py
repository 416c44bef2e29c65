"""What is known of providers, on the terminal and in the README."""

from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.catalogue import Catalogue, Listing, Provider, load_catalogue
from nexus_proxy.cli.providers import BEGIN, END, markdown, renewed
from nexus_proxy.core.money.pricelist import ListPrice
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.errors import Refused
from tests.cli.terminal import Verbs, on_a_terminal

TOML = """
[providers.deepseek]
api_key_env = "K"
"""


def listing(upstream: str, confidence: str = "high", disabled: str = "", currencies: str = "USD") -> Listing:
    prices = {
        currency: ListPrice(currency, {"input": "1", "output": "1"}, {"confidence": confidence})
        for currency in currencies.split()
    }
    return Listing(upstream, {}, prices, disabled)


def provider(name: str, dialect: Dialect, *listings: Listing, **public: str) -> Provider:
    ids = {one.upstream: one.upstream for one in listings} | public
    own = {one.upstream: one for one in listings}
    return Provider(name, f"https://{name}.example/v1", dialect, None, own, ids, title=name.title())


def invented() -> Catalogue:
    one = Dialect("one", ask_usage=True, certainty="captured", matters="Speaks plainly.")
    two = Dialect("two", ask_usage=True, certainty="assumed", matters="Hides | things.")
    plain = Dialect("plain", ask_usage=True, certainty="documented", matters="Whatever it is.")
    providers = [
        provider(
            *("one-cn", one, listing("gone", disabled="retired"), listing("a"), listing("b", "low")),
            *(listing("d"), listing("e")),
            nice="b",
        ),
        provider("one-intl", one, listing("a"), listing("c", currencies="USD CNY"), listing("free", currencies="")),
        provider("two", two, listing("x", currencies="")),
    ]
    return Catalogue({dialect.name: dialect for dialect in (plain, one, two)}, {p.name: p for p in providers}, {})


def test_the_table_has_a_line_for_each_dialect() -> None:
    assert markdown(invented()).splitlines() == [
        "| provider | dialect | what of its dialect matters | upstream models with a price | how certain |",
        "|---|---|---|---|---|",
        "| `one-cn` One-Cn<br>`one-intl` One-Intl | `one` | Speaks plainly. | 5 + 2: `a`, `nice`, `d`… "
        "| captured; prices: 7 high, 1 low |",
        "| `two` Two | `two` | Hides &#124; things. | 0 | assumed; prices: none |",
        "| any other, by configuration | `plain` | Whatever it is. | your own | documented |",
    ]


def test_a_document_is_renewed_between_its_marks_and_nowhere_else() -> None:
    old = f"before | x |\n{BEGIN}stale\n{END}after\n"
    new = renewed(old, invented())
    assert new == f"before | x |\n{BEGIN}\n{markdown(invented())}\n{END}after\n"
    assert renewed(new, invented()) == new


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_document_without_both_marks_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="two marks"):
        renewed(text, invented())


def test_a_provider_is_described_for_programs(verbs: Verbs) -> None:
    rows: dict[str, dict[str, Any]] = {row["provider"]: row for row in verbs.json("providers")}
    catalogue = load_catalogue()
    assert list(rows) == list(catalogue.providers)
    assert {name for name, row in rows.items() if row["on"]} == {"deepseek"}
    row = rows["deepseek"]
    assert (row["dialect"], row["base_url"]) == ("deepseek", "https://api.deepseek.com")
    assert row["currencies"] == ["CNY", "USD"]
    assert {"deepseek-v4", "deepseek-flash"} <= set(row["models"])
    assert row["price_confidence"]["high"] > 0
    assert (rows["siliconflow-cn"]["priced_models"], rows["siliconflow-cn"]["currencies"]) == ([], ["CNY"])
    assert all(row["matters"] and row["certainty"] for row in rows.values())


def test_providers_and_dialects_of_the_configuration_are_listed_too(verbs: Verbs) -> None:
    verbs.path.write_text("""
[dialects.acme]
based_on = "deepseek"
matters = "Counts in tokens_in."
certainty = "reported"
notes = "Told by its support."
[providers.deepseek]
dialect = "acme"
api_key_env = "K"
[providers.acme]
dialect = "acme"
base_url = "https://api.acme.example/v1"
[models."acme-large"]
provider = "acme"
upstream = "large-1"
context = 131072
max_output = 8192
price = { input = "1", output = "4" }
""")
    rows: dict[str, dict[str, Any]] = {row["provider"]: row for row in verbs.json("providers")}
    spoken = {
        "dialect": "acme",
        "matters": "Counts in tokens_in.",
        "certainty": "reported",
        "dialect_notes": "Told by its support.",
    }
    assert rows["acme"] == spoken | {
        "provider": "acme",
        "title": "acme",
        "base_url": "https://api.acme.example/v1",
        "models": ["acme-large"],
        "priced_models": ["acme-large"],
        "currencies": ["USD"],
        "notes": "",
        "price_confidence": {},
        "on": True,
    }
    assert rows["deepseek"].items() >= spoken.items()
    assert rows.keys() - {"acme"} == load_catalogue().providers.keys()
    said = verbs("providers")
    assert "Counts in tokens_in." in said
    assert said.splitlines()[-1].split()[:4] == ["acme", "on", "acme", "1"]


def test_a_provider_is_described_for_people(verbs: Verbs) -> None:
    heading, _, *lines = verbs("providers").splitlines()
    assert heading.split()[:3] == ["provider", "on", "dialect"]
    assert [line.split()[0] for line in lines] == list(load_catalogue().providers)
    assert [line.split()[0] for line in lines if line.split()[1] == "on"] == ["deepseek"]
    narrow = on_a_terminal(80, "--config", str(verbs.path), "providers")
    assert max(map(len, narrow)) <= 80


def test_a_file_is_renewed(verbs: Verbs, tmp_path: Path) -> None:
    target = tmp_path / "README.md"
    target.write_text(f"x\n{BEGIN}{END}y\n")
    verbs("providers", "--write", str(target))
    assert target.read_text() == renewed(f"x\n{BEGIN}{END}y\n", load_catalogue())
    verbs("providers", "--write", str(verbs.path), code=1)
    verbs("providers", "--write", str(tmp_path / "gone.md"), code=2)
    assert "gone.md' does not exist" in " ".join(verbs.err.split())
    assert "Errno" not in verbs.err
