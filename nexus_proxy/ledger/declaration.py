"""What the configuration tells the ledger before anything else may: its currency, its plans, its prices.

Strategy: one list for everybody who opens a ledger, server and command line alike, so that neither can put money of
one currency into a ledger of another.
"""

from nexus_proxy.config import Config
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.protocol import DeclareCurrency, DeclarePlans, DeclarePrices, Denied, Operation, Outcome


def declarations(config: Config, at_ms: int) -> list[Operation]:
    """Return the operations, in order; each outcome is for `accept`."""
    return [
        DeclareCurrency(config.currency),
        DeclarePlans(tuple(config.plans.values())),
        DeclarePrices(config.prices, at_ms),
    ]


def accept(outcome: Outcome) -> None:
    """Go on, or raise LedgerError: the configuration does not fit the ledger."""
    if isinstance(outcome, Denied):
        raise LedgerError(outcome.reason)
