"""Every verb of the command line, with a server running and without one: the same words, the same effects."""

import asyncio
import contextlib
import csv
import io
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.admin.socket import socket_path
from nexus_proxy.admin.verbs import Admin
from nexus_proxy.cli import reach
from nexus_proxy.cli.main import run
from nexus_proxy.config import Config, load
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.request import apikey
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.directory import Directory
from nexus_proxy.ledger.protocol import CreateAccount, CreateKey, DeclarePlans, DeclarePrices, Hold, Settle, TopUp
from nexus_proxy.ledger.sqlite.lock import WriterLock
from nexus_proxy.ledger.sqlite.read import SqliteReader
from nexus_proxy.ledger.sqlite.store import SqliteStore
from nexus_proxy.ledger.writer import Writer
from nexus_proxy.runtime.clock import now_ms
from tests.rig.admins import listening

TOML = """
[plans.free]
rung = true
rpm = 10
[plans.dedicated]
rpm = 6000
[providers.local]
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
allow_private = true
api_key_env = "LOCAL_KEY_THAT_IS_NOT_SET"
[models."my-model"]
provider = "local"
upstream = "served-name"
price = { input = "0.10", cached_input = "0.02", output = "0.40" }
context = 131072
max_output = 8192
"""


class Shell:
    """Runs `nexus-proxy` in this process and reads what it wrote."""

    def __init__(self, config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config_path = config_path
        self._capsys = capsys

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run one verb, expect the exit code, return stdout (or stderr if it failed)."""
        got = run(["--config", str(self.config_path), *words])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        assert got == code, out + err
        self.err = err
        return out if code == 0 else out + err

    def json(self, *words: str, code: int = 0) -> Any:
        """Run one verb with `--json`."""
        got = run(["--config", str(self.config_path), *words, "--json"])
        out, err = self._capsys.readouterr()
        assert got == code, out + err
        return json.loads(out)


@contextlib.contextmanager
def serving(config: Config) -> Iterator[Directory]:
    """Run what `serve` has for admins: writer, directory, socket; on a thread of its own."""
    directory = Directory()
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        store = SqliteStore(config.ledger.path)
        writer = Writer(store, loop=loop, on_broken=lambda error: None)
        await writer.start()
        await writer.run(DeclarePlans(tuple(config.plans.values())))
        reader = SqliteReader(config.ledger.path)
        for account in await reader.accounts():
            directory.put_account(account)
        for key in await reader.keys():
            directory.put_key(key)
        admin = Admin(writer, reader, directory, config, now_ms)
        async with listening(admin, config.ledger.path):
            ready.set()
            await stop.wait()
        await reader.close()
        await writer.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield directory
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def seed(config: Config) -> None:
    """Write one account, one key and two closed requests, as a server would have."""
    (price,) = config.prices
    model = config.models["my-model"]
    store = SqliteStore(config.ledger.path)
    store.open()
    store.apply([DeclarePlans(tuple(config.plans.values())), DeclarePrices(config.prices, 1)])
    store.apply(
        [
            CreateAccount("seeded", 1),
            CreateKey("seeded", apikey.hash_key("x"), "abcd", 1, "main"),
            TopUp("seeded", 10**9, 1),
        ]
    )
    account_id, key_id = 5, 1
    for number in (1, 2):
        day_ms = (1 if number == 1 else 40) * 86_400_000
        opened_ms = now_ms() - day_ms
        names = (model.id, model.provider, model.upstream)
        hold = Hold(f"r{number}", account_id, key_id, *names, True, price.price.price_id, 10**6, 9, 9, opened_ms)
        usage = Usage(prompt=8, completion=3, cached=2, reasoning=1)
        done = (EndState.COMPLETE, UsageSource.REPORTED, usage, 1840, 1840, 200)
        store.apply([hold, Settle(f"r{number}", *done, opened_ms + 1, 1, 1)])
    store.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "nexus.toml"
    path.write_text(TOML)
    return load(path, {"LOCAL_KEY_THAT_IS_NOT_SET": "x"})


@pytest.fixture
def shell(config: Config, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(config.ledger.path.with_name("nexus.toml"), capsys)


@pytest.fixture(params=["alone", "served"])
def place(request: pytest.FixtureRequest, config: Config) -> Iterator[Directory | None]:
    """The same verbs in both situations; the directory where a server runs."""
    seed(config)
    if request.param == "alone":
        yield None
    else:
        with serving(config) as directory:
            yield directory


def test_accounts(place: Directory | None, shell: Shell) -> None:
    made = shell.json("account", "create", "acme", "--plan", "dedicated", "--overdraft", "1.5")
    assert (made["account"], made["plan"], made["overdraft"], made["available"]) == (
        "acme",
        "dedicated",
        "1.50",
        "1.50",
    )
    changed = shell.json("account", "set", "acme", "--suspend", "--plan", "", "--overdraft", "0")
    assert (changed["suspended"], changed["plan"], changed["overdraft"]) == (True, "free", "0.00")
    if place is not None:
        account = place.account(made["id"])
        assert account is not None
        assert account.suspended
    assert shell.json("account", "set", "acme", "--resume")["suspended"] is False
    assert shell.json("account", "show", "acme")["keys"] == []
    assert [row["account"] for row in shell.json("account", "list")] == ["acme", "seeded"]
    assert "acme" in shell("account", "list")
    assert "No keys yet" in shell("account", "show", "acme")


def test_keys(place: Directory | None, shell: Shell) -> None:
    made = shell.json("key", "create", "seeded", "--name", "ci", "--models", "my-model, other", "--rpm", "5")
    assert {"key", "id", "account"} <= made.keys()
    assert apikey.is_well_formed(made["key"])
    assert (made["account"], made["models"], made["rpm"]) == ("seeded", ["my-model", "other"], 5)
    listed = {row["id"]: row for row in shell.json("key", "list", "seeded")}
    assert listed[made["id"]]["hint"] == made["key"][-4:]
    assert made["key"] not in shell("key", "list")
    if place is not None:
        found = place.find(apikey.hash_key(made["key"]))
        assert found is not None
        assert not found.revoked
    assert shell.json("key", "revoke", str(made["id"]))["revoked_at"]
    if place is not None:
        assert found is not None
        assert found.revoked
    printed = shell("key", "create", "seeded", "--name", "[red]x[/red]")
    assert re.search(r"sk-ai-nexus-\w{49}\n", printed)
    assert "[red]x[/red]" in printed
    assert "cannot be shown again" in shell.err


def test_e08_topup(place: Directory | None, shell: Shell) -> None:
    pay = ("topup", "seeded", "2.000000001", "--external-id", "pay-1", "--note", "first")
    first, second = shell.json(*pay), shell.json(*pay)
    assert (first["applied"], second["applied"]) == (True, False)
    assert first["entry"] == second["entry"]
    assert first["balance"] == second["balance"] == "2.999996321"
    assert "nothing was added" in shell(*pay)
    assert "another account or amount" in shell("topup", "seeded", "3", "--external-id", "pay-1", code=1)


def test_usage(place: Directory | None, shell: Shell) -> None:
    sums = {"prompt_tokens": 16, "cached_tokens": 4, "completion_tokens": 6, "reasoning_tokens": 2}
    everything = {"requests": 2, **sums, "charge": "0.00000368", "currency": "USD"}
    assert shell.json("usage", "--by", "model") == [{"model": "my-model", **everything}]
    assert shell.json("usage", "--by", "account") == [{"account": "seeded", **everything}]
    assert len(shell.json("usage")) == 2
    (line,) = shell.json("usage", "--by", "key")
    assert "abcd" in line["key"]
    for since in ("7d", (datetime.now(UTC) - timedelta(days=7)).date().isoformat()):
        (line,) = json.loads(shell("usage", "--since", since, "--format", "json"))
        assert line["charge"] == "0.00000184"
    (row,) = csv.DictReader(io.StringIO(shell("usage", "--by", "model", "--format", "csv")))
    assert (row["model"], row["charge"], row["requests"]) == ("my-model", "0.00000368", "2")
    assert "0.00000368" in shell("usage", "--by", "account")
    assert "Nothing" in shell("usage", "--since", "1s")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("account", "create", "seeded"), "seeded"),
        (("account", "create", "a b"), "1 to 64"),
        (("account", "create", "revenue"), "ledger's own"),
        (("account", "create", "x", "--plan", "gold"), "gold"),
        (("account", "show", "ghost"), "ghost"),
        (("account", "set", "ghost", "--suspend"), "ghost"),
        (("key", "create", "ghost"), "ghost"),
        (("key", "create", "seeded", "--expires", "2001-01-01"), "past"),
        (("key", "revoke", "999"), "999"),
        (("topup", "ghost", "1"), "ghost"),
        (("topup", "seeded", "4000000000"), "amount is too large for this ledger"),
    ],
)
def test_refusals_exit_1(place: Directory | None, shell: Shell, words: tuple[str, ...], named: str) -> None:
    assert named in shell(*words, code=1)


@pytest.mark.parametrize(
    "words",
    [
        ("topup", "acme", "0"),
        ("topup", "acme", "--", "-5"),
        ("account", "create", "x", "--overdraft", "-1"),
        ("account", "set", "acme", "--suspend", "--resume"),
        ("nonsense",),
        ("account", "create"),
        ("account", "set", "acme"),
        ("account", "create", "x", "--overdraft", "1e3"),
        ("topup", "acme", "abc"),
        ("topup", "acme", "0.0000000001"),
        ("topup", "acme", "99999999999999"),
        ("key", "revoke", "abc"),
        ("key", "create", "acme", "--models", ","),
        ("key", "create", "acme", "--rpm", "0"),
        ("key", "create", "acme", "--expires", "soon"),
        ("usage", "--by", "colour"),
        ("usage", "--since", "999999w"),
        ("usage", "--json", "--format", "csv"),
        ("usage", "--json", "--format", "table"),
        ("ledger", "backup"),
    ],
)
def test_wrong_usage_exits_2(shell: Shell, config: Config, words: tuple[str, ...]) -> None:
    assert "Usage" in shell(*words, code=2)
    assert not config.ledger.path.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("key", "revoke", "laptop"), "`nexus-proxy key list` shows it"),
        (("topup", "acme", "99999999999999999999"), "too large"),
        (("topup", "acme", "4700000000.5"), "too large"),
        (("topup", "acme", "0.0000000001"), "more than 9 decimal places"),
    ],
)
def test_wrong_usage_says_what_is_wanted(shell: Shell, words: tuple[str, ...], said: str) -> None:
    assert said in shell(*words, code=2)


def test_expiry_is_a_date_or_a_duration(shell: Shell) -> None:
    shell("account", "create", "acme")
    dated = shell.json("key", "create", "acme", "--expires", "2099-12-31T18:00+08:00")
    assert dated["expires_at"] == "2099-12-31T10:00:00.000Z"
    ahead = datetime.fromisoformat(shell.json("key", "create", "acme", "--expires", "30d")["expires_at"])
    assert timedelta(days=29.9) < ahead - datetime.now(UTC) < timedelta(days=30.1)


def test_f12_no_verb_of_an_admin_needs_a_secret(place: Directory | None, shell: Shell) -> None:
    wanting = 'api_key_file = "secrets/nobody-may-read-it"\nca_file = "secrets/ca.pem"'
    shell.config_path.write_text(TOML.replace('api_key_env = "LOCAL_KEY_THAT_IS_NOT_SET"', wanting))
    assert shell.json("topup", "seeded", "1")["applied"]
    for words in (("usage",), ("models",), ("ledger", "verify")):
        shell.json(*words)
    assert "api_key_file: cannot be read" in shell("config", "check", code=1)
    assert "api_key_file: cannot be read" in shell("serve", code=1)


# --- what cannot be reached ---------------------------------------------------------------------------------------


def test_d14_lock_without_a_server_exits_3(shell: Shell, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "PATIENCE_S", 0.1)
    shell("account", "create", "acme")
    lock = WriterLock(config.ledger.path)
    lock.take()
    said = shell("account", "list", code=3)
    assert str(socket_path(config.ledger.path)) in said
    assert str(os.getpid()) in said
    lock.release()
    shell("account", "list")


def test_a_lock_that_is_let_go_is_waited_for(shell: Shell, config: Config) -> None:
    lock = WriterLock(config.ledger.path)
    lock.take()
    timer = threading.Timer(0.2, lock.release)
    timer.start()
    shell("account", "create", "acme")
    timer.join()


def test_a_socket_that_a_killed_server_left_is_no_server(shell: Shell, config: Config) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(socket_path(config.ledger.path)))
    dead.close()
    shell("account", "create", "acme")


def test_a_server_that_hangs_up_exits_3(shell: Shell, config: Config) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(config.ledger.path)))
        listener.listen()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert "did not answer" in shell("account", "list", code=3)
        thread.join()


def test_d12_d13_ledgers_that_cannot_be_opened_exit_3(shell: Shell, config: Config) -> None:
    config.ledger.path.write_bytes(b"no database" * 1000)
    assert str(config.ledger.path) in shell("account", "list", code=3)
    assert "not a database" in shell("ledger", "backup", str(config.ledger.path.with_name("copy.db")), code=3)
    assert "not a database" in shell("ledger", "verify", code=1)  # found wrong
    config.ledger.path.unlink()
    config.ledger.path.mkdir()
    shell("account", "list", code=3)
    shell("ledger", "verify", code=3)


# --- verify and backup --------------------------------------------------------------------------------------------


def test_verify_and_backup(place: Directory | None, shell: Shell, tmp_path: Path, config: Config) -> None:
    counts = {"entries": 3, "requests": 2}
    assert shell.json("ledger", "verify") == {"file": str(config.ledger.path), "clean": True, **counts, "findings": []}
    assert "everything agrees (3 entries, 2 requests)" in shell("ledger", "verify")
    target = tmp_path / "backup.db"
    assert shell.json("ledger", "backup", str(target))["backup"] == str(target)
    assert "everything agrees" in shell("ledger", "verify", str(target))
    assert "there already" in shell("ledger", "backup", str(target), code=1)
    shell("topup", "seeded", "1")  # the ledger goes on
    with contextlib.closing(sqlite3.connect(target)) as database, database:
        database.execute("UPDATE accounts SET balance_nano = balance_nano + 1 WHERE name = 'seeded'")
    found = shell.json("ledger", "verify", str(target), code=1)
    assert found["clean"] is False
    assert found["findings"]
    shell("ledger", "verify", str(target), code=1)


def test_one_entry_is_counted_as_one(shell: Shell) -> None:
    shell("account", "create", "acme")
    shell("topup", "acme", "1")
    assert "everything agrees (1 entry, 0 requests)" in shell("ledger", "verify")


def test_no_ledger_is_not_made_by_looking(shell: Shell, config: Config, tmp_path: Path) -> None:
    assert "no ledger" in shell("ledger", "verify", code=3)
    assert "no ledger" in shell("ledger", "backup", str(tmp_path / "copy.db"), code=3)
    verbs = (("account", "list"), ("account", "show", "a"), ("key", "list"), ("usage",), ("topup", "a", "1"))
    for words in (*verbs, ("account", "set", "a", "--suspend"), ("key", "create", "a"), ("key", "revoke", "1")):
        said = shell(*words, code=3)
        assert f"there is no ledger at {config.ledger.path} (configuration: {shell.config_path})" in said
    shell("models")
    assert not config.ledger.path.exists()


# --- configuration ------------------------------------------------------------------------------------------------


def test_config_check(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "LOCAL_KEY_THAT_IS_NOT_SET" in shell("config", "check", code=1)
    monkeypatch.setenv("LOCAL_KEY_THAT_IS_NOT_SET", "secret-canary")
    assert "is good" in shell("config", "check")
    found = shell.json("config", "check")
    assert (found["models"], found["providers"]) == (["my-model"], ["local"])
    assert "secret-canary" not in shell("config", "check")
    assert all(line == line.rstrip() for line in shell("config", "check").splitlines())
    shell.config_path.write_text(TOML.replace("rpm = 10", "rpm = 'ten'\ncolour = 1"))
    said = shell("config", "check", code=1)
    assert "plans.free.rpm" in said
    assert "plans.free.colour" in said
    assert "plans.free.rpm" in shell("account", "list", code=1)


def test_config_check_wraps_a_long_list(shell: Shell) -> None:
    shell.config_path.write_text('[providers.siliconflow-intl]\napi_key_file = "key"\n')
    shell.config_path.with_name("key").write_text("x")
    lines = shell("config", "check").splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) < 130
    assert any("zai-org/GLM-5V-Turbo" in line for line in lines)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[server x]", "[server"),
        ('[[models."a/b".price.tiers]', '[[models."a/b".price.tiers'),
        ("api_key_env = canary", "api_key_env"),
        ('listen = "canary', "listen"),
        ("canary", ""),
        ("canary==", ""),
        ('["canary" x', ""),
    ],
)
def test_a_line_that_is_no_toml_is_named_by_its_key_and_never_quoted(shell: Shell, line: str, named: str) -> None:
    shell.config_path.write_text(f"# first\n{line}\n")
    said = shell("models", code=1)
    assert "at line 2" in said
    assert "canary" not in said
    assert (f"the line that begins with {named}\n" in said) if named else ("begins with" not in said)


def test_config_check_tells_programs_the_mistakes(shell: Shell) -> None:
    (found,) = shell.json("config", "check", code=1)["errors"]
    assert found["path"] == "providers.local.api_key_env"
    assert "LOCAL_KEY_THAT_IS_NOT_SET" in found["message"]
    shell.config_path.write_text("[server\n")
    (found,) = shell.json("config", "check", code=1)["errors"]
    assert (found["path"], "line 1" in found["message"]) == ("", True)


@pytest.mark.parametrize("place", ["config/nexus.toml", "nexus.toml", "env"])
def test_configuration_is_found(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("elsewhere.toml" if place == "env" else place)
    path.parent.mkdir(exist_ok=True)
    path.write_text('[plans.found]\nrung = true\nrpm = 3\n[ledger]\nurl = "sqlite:here.db"\n')
    monkeypatch.chdir(tmp_path)
    if place == "env":
        monkeypatch.setenv("NEXUS_CONFIG", str(path))
    assert run(["account", "create", "acme", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"] == "found"
    assert (path.parent / "here.db").exists()


def test_a_named_configuration_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--config", "/nowhere/nexus.toml", "models"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_variable_that_names_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEXUS_CONFIG", str(tmp_path / "gone.toml"))
    assert run(["models"]) == 2
    said = capsys.readouterr().err
    assert "NEXUS_CONFIG names " in said
    assert "--config'" not in said


def test_without_a_configuration_the_new_ledger_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEXUS_CONFIG", raising=False)
    assert run(["account", "list"]) == 3
    assert "no configuration file was found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert run(["account", "create", "acme", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["account"] == "acme"
    assert str(tmp_path / "nexus.db") in err
    assert run(["account", "create", "other"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [[], ["account"], ["key"], ["config"], ["ledger"]])
def test_no_summary_in_the_help_is_cut_short(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    verbs = ("serve", "demo", "account", "key", "topup", "usage", "models", "quote", "providers", "config", "ledger")
    for word in (*verbs, "NEXUS_CONFIG"):
        assert word in said


def test_the_program_is_installed_and_exits_with_its_code(tmp_path: Path) -> None:
    def program(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nexus_proxy", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)

    assert program("account", "create", "acme").returncode == 0
    again = program("account", "create", "acme")
    assert (again.returncode, again.stdout) == (1, "")
    assert "Traceback" not in again.stderr
    assert program("account").returncode == 2


def test_d14_serve_takes_verbs_refuses_a_second_and_ends_0(tmp_path: Path) -> None:
    def start(name: str, listen: str) -> subprocess.Popen[str]:
        (tmp_path / name).write_text(f'[server]\nlisten = "{listen}"\nadmin_listen = "127.0.0.1:0"\n')
        command = [sys.executable, "-m", "nexus_proxy", "--config", name, "serve"]
        return subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with start("nexus.toml", "127.0.0.1:0") as server:
        try:
            assert server.stdout is not None
            assert "serving" in server.stdout.readline()
            command = [sys.executable, "-m", "nexus_proxy", "account", "create", "acme"]
            assert subprocess.run(command, cwd=tmp_path, timeout=30, check=False).returncode == 0
            with start("other.toml", "127.0.0.1:0") as second:
                _, said = second.communicate(timeout=30)
            assert second.returncode == 3
            assert str(server.pid) in said
        finally:
            server.terminate()
        server.communicate(timeout=30)
        assert server.returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with start("taken.toml", f"127.0.0.1:{taken.getsockname()[1]}") as third:
            _, said = third.communicate(timeout=30)
        assert (third.returncode, "Traceback" in said) == (3, False), said


def test_commands_side_by_side_wait_for_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nexus_proxy", "account", "create"]
    running = [subprocess.Popen([*command, f"a{number}"], cwd=tmp_path) for number in range(3)]
    assert [process.wait(30) for process in running] == [0, 0, 0]
