"""Reads beside the writer, for the handlers and the command line.

Strategy: one read-only connection in aiosqlite's thread, opened at the first read. WAL lets it read while the writer
writes. Reports stand on the daily roll-ups; only one that begins in the middle of a day looks at the requests.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiosqlite

from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.protocol import AccountRow, KeyRow, RecentRequest, UsageBy, UsageLine
from nexus_proxy.ledger.sqlite import readonly, rows
from nexus_proxy.ledger.sqlite.posting import DAY_MS

# Backwards from the last request to the first that is clearly older, for the time has no index. What was opened before
# a clock was set back by more than the margin is not found.
_RECENT: Final = """
SELECT account_id, key_id, opened_ms FROM holds
WHERE opened_ms >= ?1
    AND seq > coalesce((SELECT seq FROM holds WHERE opened_ms < ?1 - 60000 ORDER BY seq DESC LIMIT 1), 0)
ORDER BY opened_ms, seq
"""

_DAILY: Final = "daily AS (SELECT * FROM main.daily WHERE day >= ?1 / 86400000)"
_EXACT: Final = """
daily AS (
    SELECT closed_ms / 86400000 AS day, account_id, key_id, model, 1 AS requests,
        coalesce(prompt_tokens, 0) AS prompt_tokens, coalesce(cached_tokens, 0) AS cached_tokens,
        coalesce(completion_tokens, 0) AS completion_tokens, coalesce(reasoning_tokens, 0) AS reasoning_tokens,
        charge_nano
    FROM requests WHERE closed_ms >= ?1
)
"""
_SUMS: Final = """
sum(requests), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens), sum(reasoning_tokens), sum(charge_nano)
"""
_LABELS: Final[dict[UsageBy, str]] = {
    "day": "SELECT date(day * 86400, 'unixepoch'), SUMS FROM daily GROUP BY day ORDER BY day",
    "model": "SELECT model, SUMS FROM daily GROUP BY model ORDER BY model",
    "account": """
SELECT a.name, SUMS FROM daily d JOIN accounts a USING (account_id) GROUP BY d.account_id ORDER BY d.account_id
""",
    "key": """
SELECT a.name || '/' || iif(k.name = '', k.key_id, k.name) || ' …' || k.hint, SUMS
FROM daily d JOIN keys k USING (key_id) JOIN accounts a ON a.account_id = k.account_id
GROUP BY d.key_id ORDER BY d.key_id
""",
}


class SqliteReader:
    """A `Reader` on a file that a `SqliteStore` has made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: aiosqlite.Connection | None = None
        self._opening = asyncio.Lock()

    async def account(self, account_id: int) -> AccountRow | None:
        """Return an account, or None. The operator's own accounts are none."""
        found = await self._fetch(f"{rows.ACCOUNTS} AND account_id = ?", (account_id,))
        return rows.account_row(found[0]) if found else None

    async def accounts(self) -> list[AccountRow]:
        """Return every account but the operator's own, oldest first."""
        return [rows.account_row(row) for row in await self._fetch(f"{rows.ACCOUNTS} ORDER BY account_id")]

    async def keys(self, account: str | None = None) -> list[KeyRow]:
        """Return the keys of one account, or all; oldest first."""
        query = f"{rows.KEYS} WHERE ?1 IS NULL OR a.name = ?1 ORDER BY k.key_id"
        return [rows.key_row(row) for row in await self._fetch(query, (account,))]

    async def request(self, request_id: str) -> dict[str, Any] | None:
        """Return the row of the view `usage`, by column name."""
        connection = await self._open()
        query = 'SELECT * FROM "usage" WHERE request_id = ?'
        with _readable():
            async with connection.execute(query, (request_id,)) as cursor:
                row = await cursor.fetchone()
                return None if row is None else dict(zip((c[0] for c in cursor.description), row, strict=True))

    async def recent(self, since_ms: int) -> list[RecentRequest]:
        """Requests opened at or after `since_ms`, oldest first."""
        return [RecentRequest(*row) for row in await self._fetch(_RECENT, (since_ms,))]

    async def usage(self, by: UsageBy, since_ms: int | None) -> list[UsageLine]:
        """Closed requests summed up, of those closed at or after `since_ms`; days and ids in ascending order."""
        since_ms = since_ms or 0
        query = _LABELS[by].replace("SUMS", _SUMS)
        source = _EXACT if since_ms % DAY_MS else _DAILY
        return [UsageLine(*row) for row in await self._fetch(f"WITH {source} {query}", (since_ms,))]

    async def ping(self) -> None:
        """Raise if the ledger cannot be read."""
        await self._fetch("SELECT 1 FROM runs LIMIT 1")

    async def close(self) -> None:
        """Release the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _fetch(self, query: str, parameters: Iterable[Any] = ()) -> list[Any]:
        connection = await self._open()
        with _readable():
            return list(await connection.execute_fetchall(query, parameters))

    async def _open(self) -> aiosqlite.Connection:
        async with self._opening:
            if self._connection is None:
                # A failed connect of aiosqlite leaves a thread behind, so a plain one tries first.
                await asyncio.to_thread(_try, self._path)
                with _readable():
                    self._connection = await aiosqlite.connect(readonly.uri(self._path), uri=True, timeout=5.0)
                    await self._connection.execute("PRAGMA query_only = ON")
            return self._connection


@contextmanager
def _readable() -> Iterator[None]:
    """Let SQLite's errors out as the ledger's."""
    try:
        yield
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger cannot be read: {error}") from error


def _try(path: Path) -> None:
    readonly.connect(path).close()
