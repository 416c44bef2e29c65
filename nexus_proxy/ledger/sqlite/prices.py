"""Price versions as the ledger keeps them: tiers as JSON text, so that a charge can be computed again from the file."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from nexus_proxy.core.money.prices import Price, PriceVersion, Rates, Tier

SELECT: Final = """
SELECT price_id, model, provider, cost_currency, tiers, cost_tiers, source FROM price_versions
"""


def to_row(version: PriceVersion) -> tuple[str, ...]:
    """Return the values of the columns of SELECT."""
    price = version.price
    source = orjson.dumps(version.source, option=orjson.OPT_SORT_KEYS).decode()
    tiers, cost_tiers = orjson.dumps(price.tiers).decode(), orjson.dumps(price.cost_tiers).decode()
    return (price.price_id, version.model, version.provider, price.cost_currency, tiers, cost_tiers, source)


def from_row(row: Sequence[Any]) -> PriceVersion:
    """Return the version that `to_row` wrote. ValueError, KeyError or TypeError if the text is damaged."""
    price_id, model, provider, cost_currency, tiers, cost_tiers, source = row
    price = Price(price_id, _tiers(tiers), _tiers(cost_tiers), cost_currency)
    return PriceVersion(price, model, provider, orjson.loads(source))


def _tiers(text: str) -> tuple[Tier, ...]:
    return tuple(Tier(t["input_max"], t["output_max"], Rates(**t["rates"])) for t in orjson.loads(text))
