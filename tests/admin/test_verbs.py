"""The admin's verbs over a real ledger, and the Unix socket that they are asked through."""

import asyncio
import itertools
import json
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.admin.application import ARGUMENTS_BYTES_MAX
from nexus_proxy.admin.socket import ServerAbsent, call, socket_path
from nexus_proxy.admin.verbs import Admin
from nexus_proxy.config import Config, load
from nexus_proxy.core.request import apikey
from nexus_proxy.errors import LedgerError, LedgerUnavailable, Refused
from nexus_proxy.ledger.directory import Directory
from nexus_proxy.ledger.protocol import DeclarePlans, Operation, Outcome
from nexus_proxy.ledger.sqlite.read import SqliteReader
from nexus_proxy.ledger.sqlite.schema import INTERNAL
from nexus_proxy.ledger.sqlite.store import SqliteStore
from tests.rig.admins import listening

TOML = """
[plans.free]
rung = true
rpm = 10
[plans.paid]
rung = true
rpm = 60
min_paid = "5.00"
[plans.dedicated]
rpm = 6000
"""


class Ledger:
    """A real store without the writer's thread."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path)
        self.store.open()
        self.broken = False

    async def run(self, op: Operation) -> Outcome:
        if self.broken:
            raise LedgerUnavailable("the disk is full")
        return self.store.apply([op])[0]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "nexus.toml"
    path.write_text(TOML)
    return load(path, {})


@pytest.fixture
def ledger(config: Config) -> Iterator[Ledger]:
    ledger = Ledger(config.ledger.path)
    ledger.store.apply([DeclarePlans(tuple(config.plans.values()))])
    yield ledger
    ledger.store.close()


@pytest.fixture
def lookup() -> Directory:
    return Directory()


@pytest.fixture
async def admin(ledger: Ledger, lookup: Directory, config: Config) -> AsyncIterator[Admin]:
    reader = SqliteReader(config.ledger.path)
    clock = itertools.count(1_800_000_000_000, 1_000)
    yield Admin(ledger, reader, lookup, config, lambda: next(clock))
    await reader.close()


async def test_account_is_made_once_and_found_at_once(admin: Admin, lookup: Directory) -> None:
    made = await admin.account_create("acme", overdraft="2.5")
    assert made["account"] == "acme"
    assert (made["plan"], made["plan_assigned"], made["rpm"]) == ("free", None, 10)
    assert (made["balance"], made["overdraft"], made["available"]) == ("0.00", "2.50", "2.50")
    found = lookup.account(made["id"])
    assert found is not None
    assert found.name == "acme"
    with pytest.raises(Refused, match="acme"):
        await admin.account_create("acme")
    assert [row["account"] for row in await admin.account_list()] == ["acme"]


async def test_e14_changes_are_in_the_directory_before_the_verb_answers(admin: Admin, lookup: Directory) -> None:
    made = await admin.account_create("acme")
    key = await admin.key_create("acme", models=["m"], rpm=7)
    found = lookup.find(apikey.hash_key(key["key"]))
    assert found is not None
    assert (found.revoked, found.models, found.rpm, found.account.name) == (False, frozenset({"m"}), 7, "acme")
    revoked = await admin.key_revoke(key["id"])
    assert found.revoked
    assert (await admin.key_revoke(key["id"]))["revoked_at"] == revoked["revoked_at"]
    for suspended in (True, False):
        assert (await admin.account_set("acme", suspended=suspended))["suspended"] is suspended
        assert found.account.suspended is suspended
    assert lookup.account(made["id"]) is found.account


async def test_plan_is_assigned_climbed_and_given_back(admin: Admin, lookup: Directory) -> None:
    made = await admin.account_create("acme", plan="dedicated")
    paid = await admin.topup("acme", "5.00")
    assert (paid["plan"], paid["rpm"]) == ("dedicated", 6000)
    back = await admin.account_set("acme", plan="")
    assert (back["plan"], back["plan_assigned"]) == ("paid", None)
    found = lookup.account(made["id"])
    assert found is not None
    assert (found.plan, found.paid_nano) == (None, 5_000_000_000)
    with pytest.raises(Refused, match="dedicated, free, paid"):
        await admin.account_set("acme", plan="gold")
    with pytest.raises(Refused, match="gold"):
        await admin.account_create("other", plan="gold")


async def test_e08_topup_with_one_external_id_is_applied_once(admin: Admin) -> None:
    await admin.account_create("acme")
    answers = await asyncio.gather(*(admin.topup("acme", "0.000000001", external_id="pay-1") for _ in range(100)))
    assert sum(answer["applied"] for answer in answers) == 1
    assert {answer["entry"] for answer in answers} == {answers[0]["entry"]}
    assert (await admin.account_show("acme"))["balance"] == "0.000000001"
    with pytest.raises(Refused, match="pay-1"):
        await admin.topup("acme", "2.00", external_id="pay-1")


@pytest.mark.parametrize("amount", ["0", "-1", "0.0000000001", "1e3", "NaN", "", " 1", "٣", "5000000000", "9" * 40])
async def test_e16_amounts_that_cannot_be_are_refused(admin: Admin, amount: str) -> None:
    await admin.account_create("acme")
    with pytest.raises(Refused):
        await admin.topup("acme", amount)
    assert (await admin.account_show("acme"))["total_paid"] == "0.00"


async def test_e16_a_sum_past_the_limit_is_refused(admin: Admin) -> None:
    await admin.account_create("acme")
    await admin.topup("acme", "2000000000")
    with pytest.raises(Refused):
        await admin.topup("acme", "2000000000")
    assert (await admin.account_show("acme"))["balance"] == "2000000000.00"


async def test_f02_key_is_shown_once_and_stored_as_hash(admin: Admin, config: Config, ledger: Ledger) -> None:
    await admin.account_create("acme")
    made = await admin.key_create("acme", name="Ann's laptop", models=["m1", "m1", "m2"], rpm=3, expires="2030-01-01")
    assert apikey.is_well_formed(made["key"])
    assert (made["models"], made["unserved_models"]) == (["m1", "m2"], ["m1", "m2"])
    assert made["expires_at"] == "2030-01-01T00:00:00.000Z"
    (listed,) = await admin.key_list("acme")
    assert "key" not in listed
    assert listed["hint"] == made["key"][-4:]
    ledger.store.close()
    stored = b"".join(path.read_bytes() for path in config.ledger.path.parent.iterdir())
    assert made["key"].encode() not in stored
    assert made["key"][12:40].encode() not in stored


async def test_keys_are_all_different(admin: Admin) -> None:
    await admin.account_create("acme")
    assert len({(await admin.key_create("acme"))["key"] for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": "nobody"},
        {"rpm": 0},
        {"models": []},
        {"models": [""]},
        {"expires": "2001-01-01"},
        {"expires": "soon"},
        {"name": "a\nb"},
        {"name": "x" * 65},
    ],
)
async def test_keys_that_cannot_be_are_refused(admin: Admin, wrong: dict[str, Any]) -> None:
    await admin.account_create("acme")
    with pytest.raises(Refused):
        await admin.key_create(**{"account": "acme", **wrong})
    assert await admin.key_list() == []


async def test_what_is_not_there_is_refused(admin: Admin) -> None:
    for verb in (admin.account_show("ghost"), admin.account_set("ghost"), admin.topup("ghost", "1")):
        with pytest.raises(Refused, match="ghost"):
            await verb
    with pytest.raises(Refused, match="ghost"):
        await admin.key_list("ghost")
    for key_id in (7, 0, -1, 2**63):
        with pytest.raises(Refused):
            await admin.key_revoke(key_id)


@pytest.mark.parametrize("name", [*INTERNAL.values(), "Revenue"])
async def test_internal_accounts_are_out_of_reach(admin: Admin, name: str) -> None:
    for verb in (admin.account_create(name), admin.account_set(name, suspended=True), admin.topup(name, "1")):
        with pytest.raises(Refused):
            await verb
    with pytest.raises(Refused):
        await admin.key_create(name)
    with pytest.raises(Refused):
        await admin.account_show(name)
    assert await admin.account_list() == []


@given(st.one_of(st.text(), st.sampled_from(["'; DROP TABLE accounts; --", "a\n", "a\x00", "ａ", "a" * 65])))
def test_f19_names_are_a_closed_alphabet(name: str) -> None:
    admin = Admin.__new__(Admin)  # no ledger: the name must be refused before it is asked
    if name.isascii() and 0 < len(name) <= 64 and all(c.isalnum() or c in "._@-" for c in name):
        return
    with pytest.raises(Refused):
        asyncio.run(admin.account_create(name))


# --- the socket ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def served(admin: Admin, config: Config) -> AsyncIterator[Path]:
    async with listening(admin, config.ledger.path):
        yield config.ledger.path
    assert not socket_path(config.ledger.path).exists()


async def ask(ledger: Path, verb: str, **arguments: Any) -> Any:
    return await asyncio.to_thread(call, ledger, verb, arguments)


async def test_every_verb_answers_over_the_socket(served: Path, admin: Admin) -> None:
    await ask(served, "account_create", account="acme")
    await ask(served, "account_set", account="acme", plan="dedicated")
    await ask(served, "topup", account="acme", amount="3.00", note="祝你好运")
    key = await ask(served, "key_create", account="acme", models=["m"], rpm=5)
    assert (await ask(served, "key_list"))[0]["id"] == key["id"]
    await ask(served, "key_revoke", key_id=key["id"])
    assert (await ask(served, "account_show", account="acme"))["keys"][0]["revoked_at"]
    assert (await ask(served, "account_list"))[0]["balance"] == "3.00"
    assert await ask(served, "usage", by="model", since="2030-01-01") == []
    assert len(admin.verbs()) == 9


async def test_f10_socket_is_for_its_owner_alone(served: Path) -> None:
    assert stat.S_IMODE(socket_path(served).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("verb", "arguments", "named"),
    [
        ("account_create", {}, "account"),
        ("account_create", {"account": 5}, "account"),
        ("account_create", {"account": "a", "balance_nano": 10**9}, "balance_nano"),  # F21
        ("account_set", {"account": "a", "suspended": "yes"}, "suspended"),
        ("topup", {"account": "a", "amount": 5}, "amount"),
        ("topup", {"account": "a", "amount": 0.1}, "amount"),
        ("key_create", {"account": "a", "rpm": True}, "rpm"),
        ("key_revoke", {"key_id": "1"}, "key_id"),
        ("usage", {"by": "charge_nano; DROP TABLE keys"}, "by"),
        ("usage", {"since": "yesterday"}, "since"),
    ],
)
async def test_f21_wrong_arguments_are_refused(served: Path, verb: str, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused, match=named):
        await ask(served, verb, **arguments)


async def test_what_is_no_verb_is_not_found(served: Path) -> None:
    for verb in ("verbs", "_run", "__init__", "application"):
        with pytest.raises(LedgerError, match="404"):
            await ask(served, verb)


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"\xff"])
async def test_a01_what_is_no_object_is_answered_in_json(served: Path, body: bytes) -> None:
    connector = aiohttp.UnixConnector(str(socket_path(served)))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post("http://admin/usage", data=body) as response,
    ):
        assert response.status == 400
        assert list(json.loads(await response.read())) == ["error"]


async def test_d07_a_ledger_that_cannot_commit_is_named(served: Path, ledger: Ledger) -> None:
    ledger.broken = True
    with pytest.raises(LedgerError, match="the disk is full"):
        await ask(served, "account_create", account="acme")


async def test_d13_a_ledger_that_cannot_be_read_is_named(served: Path) -> None:
    for path in served.parent.glob("nexus.db*"):
        if path != socket_path(served):
            path.unlink()
    with pytest.raises(LedgerError, match=r"503: there is no ledger at .*nexus\.db"):
        await ask(served, "account_list")


async def speak(ledger: Path, sent: bytes) -> bytes:
    """Send bytes to the socket and return all that comes back before it is closed."""
    reader, writer = await asyncio.open_unix_connection(socket_path(ledger))
    writer.write(sent)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_f05_what_is_not_http_is_not_repeated(served: Path, caplog: pytest.LogCaptureFixture) -> None:
    answer = await speak(served, b"POST /usage HTTP/1.1\r\nX-Canary\x01: sk-ai-nexus-canary\r\n\r\n")
    assert b" 400 Bad Request\r\n" in answer
    assert b"canary" not in answer.lower()
    assert "canary" not in caplog.text.lower()


async def test_arguments_are_bounded(served: Path) -> None:
    with pytest.raises(LedgerError, match="413"):
        await ask(served, "topup", note="x" * ARGUMENTS_BYTES_MAX)


async def test_a_path_longer_than_an_address_works(admin: Admin, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    async with listening(admin, directory / "nexus.db"):
        assert stat.S_IMODE((directory / "nexus.db.sock").stat().st_mode) == 0o600
        assert await ask(directory / "nexus.db", "account_list") == []
    assert list(directory.iterdir()) == []


async def test_a_dead_socket_is_nobody_and_is_replaced(admin: Admin, tmp_path: Path) -> None:
    ledger = tmp_path / "nexus.db"
    with pytest.raises(ServerAbsent):
        await ask(ledger, "account_list")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_path(ledger)))
    dead.close()  # a killed server leaves its file like this
    with pytest.raises(ServerAbsent):
        await ask(ledger, "account_list")
    async with listening(admin, ledger):
        assert await ask(ledger, "account_list") == []


async def test_a_socket_that_cannot_be_made_is_a_ledger_error(admin: Admin, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"nexus\.db\.sock"):
        async with listening(admin, tmp_path / "absent" / "nexus.db"):
            pass
