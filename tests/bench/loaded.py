"""A door that has been in use for a long time: many accounts, many keys, a long ledger.

Strategy: accounts and keys are made by the ledger's own store, requests by SQL into its tables, with every sum, hash
and roll-up that they would have left; `ledger verify` proves this ledger like any other. A ledger that was made is
kept, if its folder is, and a run works on a copy. Where more than one key asks, they ask in turn, in random order, and
the empty ledger's door is asked by as many: what it costs that many ask is not what it costs that many are there.
"""

import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from nexus_proxy import config
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.chain import Entry, chain
from nexus_proxy.core.money.prices import amount_nano, bound_nano
from nexus_proxy.core.request import apikey
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.declaration import declarations
from nexus_proxy.ledger.protocol import AccountRow, CreateAccount, CreateKey, KeyRow, Operation, Outcome, TopUp
from nexus_proxy.ledger.sqlite.migrations import STEPS
from nexus_proxy.ledger.sqlite.posting import DAY_MS
from nexus_proxy.ledger.sqlite.schema import REVENUE
from nexus_proxy.ledger.sqlite.store import SqliteStore
from nexus_proxy.runtime.clock import now_ms
from tests.bench.door import Door
from tests.bench.systems import MODEL, Place
from tests.rig.settings import ENVIRON

BATCH = 10_000  # operations, or rows, at once
DAYS = 90  # over which the rows are spread; the newest is older than any window of the limiter
_NEWEST_MS = 600_000
_PAID_NANO = 10_000 * NANO
_INPUT_BOUND, _OUTPUT_BOUND = 1_000, 512


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is."""

    accounts: int = 10_000
    keys: int = 100_000
    rows: int = 1_000_000
    asking: int = 1  # keys that the load uses, of either door


def keys(size: Size) -> list[str]:
    """Return the keys of every ledger of that size."""
    chance = random.Random(1)
    return [apikey.mint(chance.randbytes(apikey.ENTROPY_BYTES)) for _ in range(size.keys)]


def _account(key: int, size: Size) -> int:
    return key % size.accounts


def _asking(size: Size) -> list[int]:
    """Return the numbers of the keys that ask, in the order in which they do."""
    return random.Random(2).sample(range(size.keys), size.asking)


def fill(path: Path, settings: config.Config, size: Size, say: Callable[[str], None] = lambda _: None) -> None:
    """Make the ledger there. The same size gives the same ledger, times apart."""
    made_ms = now_ms()
    first_ms = made_ms - DAYS * DAY_MS
    store = SqliteStore(path)
    store.open()
    try:
        store.apply(declarations(settings, made_ms))
        accounts = _apply(store, _accounts(size, first_ms))
        assert sum(isinstance(row, AccountRow) for row in accounts) == size.accounts
        known = [row for row in _apply(store, _keys(size, first_ms)) if isinstance(row, KeyRow)]
        assert len(known) == size.keys
    finally:
        store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")  # a ledger that was not finished is never used
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -1000000")  # KiB
        db.execute("BEGIN")
        _requests(db, settings.models[MODEL], known, size, first_ms, say)
        db.execute("UPDATE runs SET settled_seq = ?", (size.rows,))
        for statement in _SUMS:
            db.execute(statement)
        db.execute("COMMIT")


def _apply(store: SqliteStore, operations: Iterator[Operation]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    while batch := list(islice(operations, BATCH)):
        outcomes += store.apply(batch)
    return outcomes


def _accounts(size: Size, at_ms: int) -> Iterator[Operation]:
    for number in range(size.accounts):
        yield CreateAccount(f"account-{number}", at_ms, plan="wide")
        yield TopUp(f"account-{number}", _PAID_NANO, at_ms, external_id=f"invoice-{number}")


def _keys(size: Size, at_ms: int) -> Iterator[Operation]:
    for number, text in enumerate(keys(size)):
        account = f"account-{_account(number, size)}"
        yield CreateKey(account, apikey.hash_key(text), apikey.hint(text), at_ms, name=f"key-{number}")


def _requests(
    db: sqlite3.Connection,
    model: Model,
    known: Sequence[KeyRow],
    size: Size,
    first_ms: int,
    say: Callable[[str], None],
) -> None:
    """Write requests that were settled, and their entries."""
    chance = random.Random(3)
    price = model.tariff.price_at(first_ms)
    hold_nano = bound_nano(price.tiers, _INPUT_BOUND, _OUTPUT_BOUND)
    usages = [Usage(chance.randrange(1, 900), chance.randrange(1, 500)) for _ in range(1_000)]
    costs = [(u, amount_nano(price.tiers, u), amount_nano(price.cost_tiers, u)) for u in usages]
    said = (model.id, model.provider, model.upstream, 0, price.price_id, hold_nano, _INPUT_BOUND, _OUTPUT_BOUND)
    every_ms = (DAYS * DAY_MS - _NEWEST_MS) / max(size.rows, 1)
    entry_id, digest = db.execute("SELECT entry_id, hash FROM entries ORDER BY entry_id DESC LIMIT 1").fetchone()
    for begin in range(0, size.rows, BATCH):
        end = min(begin + BATCH, size.rows)
        holds, settlements, entries = [], [], []
        for number in range(begin, end):
            key, (usage, charge_nano, cost_nano) = chance.choice(known), chance.choice(costs)
            at_ms = first_ms + int(number * every_ms)
            request_id = f"req_{at_ms:012x}{number:020x}"  # sorts by time, as the door's do
            holds.append((number + 1, request_id, 1, key.account_id, key.key_id, *said, at_ms))
            settlements.append(
                (number + 1, "posted", usage.prompt, 0, 0, usage.completion, 0, at_ms, 200, "complete", "reported",
                 charge_nano, 0, cost_nano, 100, 1_000)
            )  # fmt: skip
            entry_id += 1
            moved = (entry_id, at_ms, "charge", key.account_id, REVENUE, charge_nano)
            digest = chain(digest, tuple(Entry(*moved, request_id)))
            entries.append((*moved, number + 1, None, None, "", digest))  # the row has the request's number
        db.executemany(_HOLD, holds)
        db.executemany(_SETTLEMENT, settlements)
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", entries)
        say(f"making a ledger: {end:,} of {size.rows:,} rows")


_HOLD = f"INSERT INTO holds VALUES ({', '.join('?' * 14)}, NULL, NULL, NULL, NULL, NULL)"
_SETTLEMENT = f"INSERT INTO settlements VALUES ({', '.join('?' * 16)}, '', NULL)"
_SUMS = (
    """
UPDATE accounts SET balance_nano = balance_nano - spent, spent_nano = spent, last_entry_ms = last
FROM (SELECT payer_id, sum(amount_nano) AS spent, max(at_ms) AS last FROM entries WHERE kind = 'charge' GROUP BY 1)
WHERE account_id = payer_id
""",
    f"""
UPDATE accounts SET balance_nano = balance_nano + earned, last_entry_ms = last
FROM (SELECT sum(amount_nano) AS earned, max(at_ms) AS last FROM entries WHERE kind = 'charge')
WHERE account_id = {REVENUE} AND earned IS NOT NULL
""",
    f"""
INSERT INTO daily
SELECT closed_ms / {DAY_MS}, account_id, key_id, r.model, r.provider, cost_currency, count(*), sum(prompt_tokens),
    sum(cached_tokens), sum(completion_tokens), sum(reasoning_tokens), sum(charge_nano), sum(cost_nano)
FROM requests r JOIN price_versions USING (price_id) GROUP BY 1, 2, 3, 4, 5, 6
""",
)


class FilledDoor(Door):
    """The door, on a ledger that was made."""

    def __init__(self, place: Place, size: Size, say: Callable[[str], None]) -> None:
        super().__init__(place)
        self._size, self._say = size, say

    def prepare(self) -> None:
        size = self._size
        version = zlib.crc32("".join(STEPS).encode())
        made = self.place.directory / f"ledger-{size.accounts}-{size.keys}-{size.rows}-{version:08x}.db"
        if not made.exists():
            making = made.with_suffix(".making")
            for left in making.parent.glob(f"{making.name}*"):  # by a run that was broken off
                left.unlink()
            fill(making, config.load(self.door.config_path, ENVIRON), size, self._say)
            making.rename(made)
        shutil.copyfile(made, self.door.ledger_path)
        self.before = size.rows

    async def keys(self) -> Sequence[str]:
        every = keys(self._size)
        return [every[number] for number in _asking(self._size)]


class LoadedDoor(FilledDoor):
    """The door, in use for a long time."""

    name: ClassVar[str] = "door-loaded"


def fresh_door(place: Place, size: Size, say: Callable[[str], None]) -> Door:
    """Return the door on an empty ledger: as many keys ask it, of as many accounts, and no others are there."""
    if size.asking == 1:
        return Door(place)
    accounts = len({_account(number, size) for number in _asking(size)})
    return FilledDoor(place, Size(accounts, size.asking, 0, size.asking), say)
