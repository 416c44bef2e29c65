"""A ledger that was made is one that could have grown."""

from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import pytest

from nexus_proxy import config
from nexus_proxy.core.request import apikey
from nexus_proxy.ledger.sqlite.verify import verify
from tests.bench import loaded
from tests.bench.loaded import LoadedDoor, Size, fill, fresh_door, keys
from tests.bench.systems import Place
from tests.rig.settings import ENVIRON, settings, write


def test_an_empty_one_can_be_made_too(tmp_path: Path) -> None:
    write(tmp_path / "nexus.toml", settings("http://127.0.0.1:9"))
    fill(tmp_path / "made.db", config.load(tmp_path / "nexus.toml", ENVIRON), Size(accounts=2, keys=3, rows=0))
    assert verify(tmp_path / "made.db") == []


def test_it_has_what_was_asked_for_and_proves_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded, "BATCH", 150)  # several, and the last one not full
    write(tmp_path / "nexus.toml", settings("http://127.0.0.1:9"))
    size = Size(accounts=100, keys=200, rows=1_000)
    fill(tmp_path / "made.db", config.load(tmp_path / "nexus.toml", ENVIRON), size)
    assert verify(tmp_path / "made.db") == []
    with closing(connect(tmp_path / "made.db")) as db:
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("balances", "keys", "usage")]
        states = db.execute("SELECT state, count(DISTINCT account_id) > 50 FROM requests GROUP BY 1").fetchall()
    assert counts == [100, 200, 1_000]
    assert states == [("posted", 1)]
    assert keys(size) == keys(size)
    assert len(set(keys(size))) == 200


async def test_the_empty_ledgers_door_is_asked_by_as_many_keys(tmp_path: Path) -> None:
    place = Place(tmp_path, 9, 0)
    door = fresh_door(place, Size(accounts=2, keys=9, rows=5, asking=3), lambda _: None)
    door.prepare()
    asking = await door.keys()
    assert len(set(asking)) == 3
    with closing(connect(door.door.ledger_path)) as db:
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("balances", "keys", "usage")]
        known = {row[0] for row in db.execute("SELECT key_hash FROM keys")}
    assert counts == [2, 3, 0]
    assert known == {apikey.hash_key(key) for key in asking}


async def test_as_many_accounts_ask_either_door(tmp_path: Path) -> None:
    place, size = Place(tmp_path, 9, 0), Size(accounts=20, keys=100, rows=0, asking=20)
    accounts = []
    for door in (fresh_door(place, size, lambda _: None), LoadedDoor(place, size, lambda _: None)):
        door.prepare()
        of = {row["key_hash"]: row["account_id"] for row in door.door.sql("SELECT key_hash, account_id FROM keys")}
        accounts.append({of[apikey.hash_key(key)] for key in await door.keys()})
    fresh, filled = map(len, accounts)
    assert fresh == filled < size.asking
