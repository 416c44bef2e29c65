"""A process that dies, at any moment and at each statement of a migration."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.sqlite import migrations
from nexus_proxy.ledger.sqlite.verify import verify
from tests.ledger.ledgerbook import T0, opened

WORKER = """
import asyncio, sys
from pathlib import Path
from tests.ledger.ledgerbook import T0, hold, settle, settled
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.protocol import Held, Progress, Settled, TopUp
from nexus_proxy.ledger.sqlite.store import SqliteStore
from nexus_proxy.ledger.writer import Writer

path, account_id, key_id, name = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

async def one(writer, number):
    for step in range(10_000):
        request_id = f"{name}-{number}-{step}"
        outcome = await writer.hold(hold(account_id, key_id, 1_000_000, request_id))
        assert isinstance(outcome, Held), outcome
        writer.progress(Progress(request_id, Usage(10, step % 7)))
        outcome = await settled(writer, settle(request_id, Usage(10, step % 9)))
        assert isinstance(outcome, Settled), outcome
        print(request_id, flush=True)
        await writer.run(TopUp("acme", outcome.charged_nano, T0, f"top-{request_id}"))

async def main():
    writer = Writer(SqliteStore(path), loop=asyncio.get_running_loop(), on_broken=lambda error: sys.exit(str(error)))
    print("recovered", await writer.start(), flush=True)
    await asyncio.gather(*(one(writer, number) for number in range(8)))

asyncio.run(main())
"""


def test_d3_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", NANO)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    seed = random.randrange(1 << 30)
    random.seed(seed)
    told: set[str] = set()
    for kill in range(5):
        arguments = [sys.executable, "-c", WORKER, str(path), str(account_id), str(key_id), f"k{kill}"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("recovered"), seed
            for _ in range(random.randrange(1, 400)):
                told.add(process.stdout.readline().strip())
            process.send_signal(signal.SIGKILL)
            told.update(line.strip() for line in process.stdout if line.endswith("\n"))
        assert verify(path) == [], seed  # as the dead process left it
        with opened(path) as book:
            book.store.recover(T0)
            assert book.one("SELECT count(*) FROM open_holds") == (0,), seed
        assert verify(path) == [], seed
    connection = sqlite3.connect(path)
    query = "SELECT request_id FROM requests WHERE end_state = 'complete' AND usage_source = 'reported'"
    assert told <= {request_id for (request_id,) in connection.execute(query)}, seed
    connection.close()


def _die_at(path: Path, steps: tuple[str, ...], statement: int) -> bool:
    """Migrate in a child that kills itself at the n-th statement; False if it came to its end."""
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        count = 0

        def trace(_: str) -> None:
            nonlocal count
            count += 1
            if count == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        connection.set_trace_callback(trace)
        migrations.migrate(connection, steps)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_d26_a_migration_killed_at_any_statement_is_done_or_not_begun(tmp_path: Path) -> None:
    steps = (*migrations.STEPS, "CREATE TABLE extra (x INTEGER) STRICT; INSERT INTO extra VALUES (1), (2);")
    statement = 1
    while True:
        path = tmp_path / f"killed-{statement}.db"
        killed = _die_at(path, steps, statement)
        connection = sqlite3.connect(path, isolation_level=None)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert ("accounts" in names, "open_holds" in names, "extra" in names) == (version > 0, version > 0, version > 1)
        migrations.migrate(connection, steps)
        assert connection.execute("SELECT count(*) FROM extra").fetchone() == (2,)
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
        if not killed:
            break
        statement += 1
    assert statement > 20


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "nexus.db", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(connection, ("CREATE TABLE a (x INTEGER) STRICT; CREATE TABLE a (x INTEGER) STRICT;",))
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    connection.execute("PRAGMA user_version = 7")
    with pytest.raises(LedgerError, match="version 7"):
        migrations.migrate(connection)
    connection.close()
