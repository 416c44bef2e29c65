"""What must hold of a ledger at any instant, asked of a copy of its file with plain SQL.

Strategy: the raw bytes of the database and its WAL are copied, as a crash would have left them, and a second SQLite
opens the copy. Nothing of the program is imported: the hash chain and the charges are computed again in here.
"""

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

QUERIES = {
    "I1 conservation": """
        SELECT sum(balance_nano) AS left_over FROM accounts HAVING left_over <> 0""",
    "I2 no balance below its overdraft": """
        SELECT name, balance_nano, held_nano FROM accounts
        WHERE NOT internal AND balance_nano - held_nano < -overdraft_nano""",
    "I3 held is the sum of open holds": """
        SELECT a.name, a.held_nano, total(r.hold_nano) AS holds FROM accounts a
        LEFT JOIN requests r ON r.account_id = a.account_id AND r.state = 'open'
        GROUP BY a.account_id HAVING a.held_nano <> holds""",
    "I3 balance is the sum of entries": """
        SELECT name, balance_nano, (SELECT coalesce(sum(amount_nano), 0) FROM entries WHERE payee_id = account_id)
            - (SELECT coalesce(sum(amount_nano), 0) FROM entries WHERE payer_id = account_id) AS entries
        FROM accounts WHERE balance_nano <> entries""",
    "I4 one terminal state": """
        SELECT request_id, count(*) FROM requests GROUP BY request_id HAVING count(*) <> 1
        UNION ALL SELECT seq, count(*) FROM entries WHERE kind = 'charge' GROUP BY seq HAVING count(*) > 1
        UNION ALL SELECT r.request_id, 0 FROM entries e JOIN requests r USING (seq) WHERE r.state <> 'posted'""",
    "I5 a charge is within its hold": """
        SELECT request_id, charge_nano, hold_nano FROM requests WHERE charge_nano > hold_nano""",
    "I5 a charge is its entry": """
        SELECT r.request_id, r.charge_nano, total(e.amount_nano) AS posted FROM requests r
        LEFT JOIN entries e ON e.seq = r.seq AND e.kind = 'charge'
        WHERE r.state <> 'open' GROUP BY r.request_id HAVING r.charge_nano <> posted""",
}


@contextlib.contextmanager
def copied(ledger: Path, into: Path) -> Iterator[sqlite3.Connection]:
    """Open a raw copy of the database and its WAL."""
    into.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-wal"):
        source, target = ledger.with_name(ledger.name + suffix), into / (ledger.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
    (into / (ledger.name + "-shm")).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(into / ledger.name)) as db:
        db.row_factory = sqlite3.Row
        yield db


def violations(db: sqlite3.Connection) -> list[str]:
    """Return what does not hold, for a person."""
    wrong = [f"{name}: {dict(row)}" for name, query in QUERIES.items() for row in db.execute(query)]
    wrong += [f"I13 integrity_check: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
    wrong += [f"I13 foreign_key_check: {tuple(row)}" for row in db.execute("PRAGMA foreign_key_check")]
    return wrong + _broken_chain(db) + _wrong_charges(db)


def _broken_chain(db: sqlite3.Connection) -> list[str]:
    """I6: each entry's hash is that of the one before and of what the entry says."""
    previous, wrong = "0" * 64, []
    for row in db.execute(
        "SELECT entry_id, at_ms, kind, payer_id, payee_id, amount_nano, r.request_id, external_id, corrects, note, hash"
        " FROM entries LEFT JOIN requests r USING (seq) ORDER BY entry_id"
    ):
        *values, found = tuple(row)
        text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256((previous + text).encode()).hexdigest()
        if previous != found:
            wrong.append(f"I6 the chain breaks at entry {row['entry_id']}")
            previous = found
    return wrong


def _wrong_charges(db: sqlite3.Connection) -> list[str]:
    """I5: each posted charge is what its counts cost by its own price version (flat prices only)."""
    wrong = []
    for row in db.execute("SELECT * FROM requests JOIN price_versions USING (price_id) WHERE state = 'posted'"):
        first, *more = json.loads(row["tiers"])
        if more:
            continue
        rates = first["rates"]
        cached = row["cached_tokens"] or 0
        pico = (row["prompt_tokens"] - cached) * rates["input"] + cached * rates["cached"]
        pico += row["completion_tokens"] * rates["output"]
        expected = min(-(-pico // 1000), row["hold_nano"])
        if row["charge_nano"] != expected:
            wrong.append(f"I5 {row['request_id']}: charged {row['charge_nano']}, its counts cost {expected}")
    return wrong
