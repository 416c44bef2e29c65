"""The Unix socket beside the ledger, both ends of it.

Strategy: the file `<ledger>.sock`, mode 0600 from the instant it exists, is the only way in, so who may open the
ledger may administer it and nobody else. A Unix address holds 107 bytes: longer paths are reached through a descriptor
of their directory.
"""

import asyncio
import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.errors import LedgerError, Refused
from nexus_proxy.web.protocol import ListenerRunner

ADDRESS_BYTES_MAX: Final = 107


class ServerAbsent(Exception):
    """Nobody listens on the socket."""


def socket_path(ledger: Path) -> Path:
    """Return where the server of this ledger listens."""
    return ledger.with_name(ledger.name + ".sock")


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Lend an address that fits into a Unix socket's, for as long as the block runs. OSError."""
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class AdminSocket:
    """The server's end. Whoever starts it holds the ledger's lock, so a socket file that is there is a dead one."""

    def __init__(self, app: web.Application, ledger: Path) -> None:
        # Trap: aiohttp's own runner logs every line, unpacks bodies to any size, waits for a head without end, keeps an
        # idle connection for an hour, and echoes what it cannot parse. One owner's socket needs no other times.
        self._runner = ListenerRunner(app, Timeouts(), Limits())
        self._path = socket_path(ledger)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and listen. LedgerError if the socket cannot be made."""
        await self._runner.setup()
        assert self._runner.server is not None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # bind gives the file this mode; a chmod afterwards leaves a gap
            self._path.unlink(missing_ok=True)
            with _address(self._path) as address:
                listener.bind(address)
            self._path.chmod(0o600)
            listener.listen(16)
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(self._runner.server, sock=listener)
        except OSError as error:
            listener.close()
            await self._runner.cleanup()
            raise LedgerError(f"cannot listen on {self._path}: {error}") from error

    async def stop(self) -> None:
        """Take nothing new, let verbs that run end, remove the file."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        await self._runner.cleanup()


def call(ledger: Path, verb: str, arguments: dict[str, Any], *, timeout_s: float = 30.0) -> Any:
    """Ask the server of this ledger, blocking. ServerAbsent, Refused, LedgerError (it is there but cannot do it)."""
    connection = _Connection(socket_path(ledger), timeout_s)
    try:
        connection.request("POST", f"/{verb}", json.dumps(arguments), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    except ServerAbsent:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise LedgerError(f"the server at {socket_path(ledger)} did not answer: {error!r}") from error
    finally:
        connection.close()
    return _value(status, body)


def _value(status: int, body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        raise LedgerError(f"the server answered {status} with something that is not JSON") from None
    if status == 200:
        return value
    reason = value.get("error") if isinstance(value, dict) else None
    if status in (400, 409):
        raise Refused(str(reason))
    raise LedgerError(f"the server answered {status}: {reason}")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            with _address(self._path) as address:
                self.sock.connect(address)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise ServerAbsent from None
