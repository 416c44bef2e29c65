"""A door for a test: inside this process, or as the real program.

Strategy: whichever way it was started, a test talks to it through sockets and looks at its ledger as an admin does,
read-only, by the public views. Only minting takes a short cut inside the process.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sqlite3
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from nexus_proxy import config
from nexus_proxy.admin import socket as admin_socket
from nexus_proxy.observe import log as logs
from nexus_proxy.server import Server
from tests.rig.eventually import eventually
from tests.rig.raw_client import Connection, Response, ask, get, post
from tests.rig.settings import ENVIRON, settings, write

CHAT = "/v1/chat/completions"


class DoorUnderTest(ABC):
    """A door that runs. `key` is of the account `acme`, which is on no narrow plan and has money."""

    host = "127.0.0.1"
    port: int
    admin_port: int
    key: str

    def __init__(self, directory: Path, values: Mapping[str, Any]) -> None:
        self.values = values
        self.config_path = directory / "nexus.toml"
        self.ledger_path = directory / "nexus.db"
        self.log_path = directory / "door.log"
        write(self.config_path, values)

    @property
    def url(self) -> str:
        """The base URL that a client is given."""
        return f"http://{self.host}:{self.port}/v1"

    @abstractmethod
    async def admin(self, verb: str, **arguments: Any) -> Any:
        """Run one of an admin's verbs."""

    async def mint(self, account: str, *, topup: str = "10.00", plan: str | None = "wide", **options: Any) -> str:
        """Open an account, pay in, and return a new key of it."""
        await self.admin("account_create", account=account, plan=plan)
        if topup != "0":
            await self.admin("topup", account=account, amount=topup)
        return str((await self.admin("key_create", account=account, **options))["key"])

    # --- asking ---------------------------------------------------------------------------------------------------

    def body(self, tag: str = "", **members: Any) -> dict[str, Any]:
        """Return a plain chat request."""
        base: dict[str, Any] = {"model": "m-openai", "messages": [{"role": "user", "content": "Hello!"}]}
        base |= {"max_tokens": 512} | ({"user": tag} if tag else {})
        return {key: value for key, value in (base | members).items() if value is not ...}

    def request(self, tag: str = "", *headers: str, key: str | None = None, **members: Any) -> bytes:
        """Return the bytes of a plain chat request."""
        return post(CHAT, self.body(tag, **members), key or self.key, *headers)

    def connect(self, **options: Any) -> Connection:
        """Return a connection, to be entered."""
        return Connection(self.host, self.port, **options)

    async def raw(self, data: bytes, timeout_s: float = 10) -> Response:
        """Send bytes on a connection of their own and read one response."""
        return await ask(self.host, self.port, data, timeout_s)

    async def chat(
        self, tag: str = "", *headers: str, key: str | None = None, timeout_s: float = 10, **members: Any
    ) -> Response:
        """Ask for a completion and read all of the answer."""
        return await self.raw(self.request(tag, *headers, key=key, **members), timeout_s)

    async def balance(self, key: str | None = None) -> dict[str, Any]:
        """Return what `GET /v1/balance` says."""
        return dict((await self.raw(get("/v1/balance", key or self.key))).json)

    async def operators(self, path: str) -> Response:
        """Ask the operators' listener."""
        return await ask(self.host, self.admin_port, get(path))

    async def is_ready(self) -> bool:
        """Ask `/readyz`."""
        try:
            return (await self.operators("/readyz")).status == 200
        except (ConnectionError, TimeoutError):
            return False

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of that name with these labels; 0 if there is none."""
        text = (await self.operators("/metrics")).body.decode()
        total = 0.0
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    # --- the ledger, as an admin sees it --------------------------------------------------------------------------

    def sql(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Ask the ledger's file, read-only."""
        with contextlib.closing(sqlite3.connect(f"file:{self.ledger_path}?mode=ro", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query, values)]

    def rows(self, account: str = "acme") -> list[dict[str, Any]]:
        """Return the requests of an account, oldest first."""
        return self.sql("SELECT * FROM usage WHERE account = ? ORDER BY opened_at, request_id", account)

    async def closed_rows(self, account: str = "acme", count: int = 1, timeout_s: float = 10) -> list[dict[str, Any]]:
        """Wait until the account has so many requests and all of them are closed; return them."""
        rows: list[dict[str, Any]] = []

        def are_closed() -> bool:
            nonlocal rows
            rows = self.rows(account)
            return len(rows) >= count and all(row["closed_at"] for row in rows)

        await eventually(are_closed, timeout_s)
        return rows

    async def row(self, request: str | Response, timeout_s: float = 10) -> dict[str, Any]:
        """Wait until a request is closed and return its row."""
        request_id = request if isinstance(request, str) else request.request_id
        rows: list[dict[str, Any]] = []

        def is_closed() -> bool:
            nonlocal rows
            rows = self.sql("SELECT * FROM usage WHERE request_id = ?", request_id)
            return bool(rows and rows[0]["closed_at"])

        await eventually(is_closed, timeout_s)
        return rows[0]

    def account(self, name: str = "acme") -> dict[str, Fraction]:
        """Return the account's money: balance, held, available, total_paid, total_spent."""
        (row,) = self.sql("SELECT * FROM balances WHERE account = ?", name)
        kinds = ("balance", "held", "available", "total_paid", "total_spent")
        return {kind: Fraction(str(row[kind])) for kind in kinds}

    def open_holds(self) -> int:
        """Return how many holds are open."""
        return int(self.sql("SELECT count(*) AS n FROM open_holds")[0]["n"])


class DoorInside(DoorUnderTest):
    """A door on this event loop."""

    door: Server

    async def start(self) -> None:
        """Open it on free ports. It logs everything, and is told of no secret that the log should black out."""
        self.broken: list[BaseException] = []
        self.config = config.load(self.config_path, ENVIRON)
        self._stack = contextlib.ExitStack()
        log = self._stack.enter_context(self.log_path.open("wb", buffering=0))
        logger = logs.configure(log.fileno(), level=logging.DEBUG)
        self._stack.callback(logger.close)
        try:
            self.door = Server(self.config, log=logger, on_broken=self.broken.append)
            await self.door.start()
        except BaseException:
            self._stack.close()
            raise
        self.port, self.admin_port = self.door.port, self.door.admin_port

    async def stop(self) -> None:
        """Close it. Its ledger must never have broken."""
        try:
            await self.door.stop()
        finally:
            self._stack.close()
        assert self.broken == []

    async def admin(self, verb: str, **arguments: Any) -> Any:
        return await self.door.admin.verbs()[verb](**arguments)


class DoorProcess(DoorUnderTest):
    """The real program, `nexus-proxy --config … serve`, which can be killed."""

    process: asyncio.subprocess.Process

    def __init__(self, directory: Path, values: Mapping[str, Any]) -> None:
        self.port, self.admin_port = free_port(), free_port()
        listeners = {"listen": f"127.0.0.1:{self.port}", "admin_listen": f"127.0.0.1:{self.admin_port}"}
        super().__init__(directory, {**values, "server": {**values["server"], **listeners}})

    async def start(self, timeout_s: float = 15) -> None:
        """Start it and wait until it is ready."""
        await self.launch()
        async with asyncio.timeout(timeout_s):
            while not await self.is_ready():
                assert self.process.returncode is None, self.log_path.read_text()
                await asyncio.sleep(0.02)

    async def launch(self) -> None:
        """Start it."""
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "nexus_proxy", "--config", str(self.config_path), "serve",
                stdout=log, stderr=log, env={**os.environ, **ENVIRON},
            )  # fmt: skip

    async def admin(self, verb: str, **arguments: Any) -> Any:
        return await asyncio.to_thread(admin_socket.call, self.ledger_path, verb, arguments)

    async def stop(self, sig: signal.Signals = signal.SIGTERM, timeout_s: float = 15) -> int:
        """Signal it, wait for its end and return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(sig)
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def door_inside(
    directory: Path, upstream_url: str, overrides: Mapping[str, Any] | None = None
) -> AsyncIterator[DoorInside]:
    """Run a door on this event loop for the length of a block."""
    door = DoorInside(directory, settings(upstream_url, overrides))
    await door.start()
    try:
        door.key = await door.mint("acme", topup="100.00")
        yield door
    finally:
        await door.stop()


@contextlib.asynccontextmanager
async def door_process(
    directory: Path, upstream_url: str, overrides: Mapping[str, Any] | None = None
) -> AsyncIterator[DoorProcess]:
    """Run the real program for the length of a block."""
    door = DoorProcess(directory, settings(upstream_url, overrides))
    await door.start()
    try:
        door.key = await door.mint("acme", topup="100.00")
        yield door
    finally:
        if door.process.returncode is None:
            await door.stop(signal.SIGKILL)


def free_port() -> int:
    """Return a port of loopback on which nobody listened just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
