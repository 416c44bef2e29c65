"""What is measured, in general: a proxy before the provider; and the way without any.

Strategy: each system is a process of its own before the same provider, started on the measured core and asked the same
bodies. It counts what it answered well, and in the end proves it.
"""

import asyncio
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, repeat
from pathlib import Path
from typing import ClassVar

from tests.bench.answers import BODY, question
from tests.bench.processes import ROOT, pinned_here
from tests.rig.eventually import eventually
from tests.rig.raw_client import ask

MODEL = "m-openai"
CONNECTIONS_MAX = 20_000
START_S = 60.0
STOP_S = 60.0


class Worthless(Exception):
    """A run that must not be reported, and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system is set up."""

    directory: Path
    upstream_port: int
    core: int

    @property
    def upstream_url(self) -> str:
        """The provider's base URL."""
        return f"http://127.0.0.1:{self.upstream_port}"


class System(ABC):
    """A system at a place. `pid` None: there is no process to be measured."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True  # every byte of an answer's body is the provider's
    pid: int | None = None
    port: int
    heads: Sequence[bytes]  # of a request, up to its Content-Length; they are used in turn

    def __init__(self, place: Place) -> None:
        self.place = place
        self.directory = place.directory / self.name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.heads = [head("sk-bench")]
        self.served: Counter[bool] = Counter()  # answers that were right, by whether they were streamed

    def requests(self, body: bytes) -> Iterator[bytes]:
        """Return the bytes of one request after the other with that body, without end."""
        rest = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        if len(self.heads) == 1:
            return repeat(self.heads[0] + rest)
        return (head + rest for head in cycle(self.heads))

    def right(self, body: bytes) -> bool:
        """Tell whether an unstreamed answer is the one."""
        return body == BODY

    @abstractmethod
    async def start(self) -> None:
        """Start it, and wait until it serves."""

    @abstractmethod
    async def stop(self) -> None:
        """End it."""

    async def restart(self) -> float:
        """End it and start it anew, on what it has written down; return the seconds that the start took."""
        await self.stop()
        began = time.monotonic()
        await self.start()
        return time.monotonic() - began

    async def prove(self) -> str:
        """Return what is sure about what it served. Worthless if something is wrong."""
        whole, streamed = self.served[False], self.served[True]
        return f"{self.name}: {whole:,} answers and {streamed:,} streams, all of them right."


def head(key: str, *more: str) -> bytes:
    """Return a request's head, up to its Content-Length."""
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: bench", "Content-Type: application/json")
    return "\r\n".join([*lines, f"Authorization: Bearer {key}", *more, ""]).encode()


class Direct(System):
    """No proxy: what client, provider and kernel take by themselves."""

    name = "direct"

    async def start(self) -> None:
        self.port = self.place.upstream_port

    async def stop(self) -> None:
        pass


class Server(System):
    """A program that is started with a command and listens on a port."""

    _process: asyncio.subprocess.Process | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return what is to be run, for `port`."""

    def environ(self) -> Mapping[str, str]:
        """Return what is to be added to the environment."""
        return {}

    async def start(self) -> None:
        self.port = _free_port()
        command = self.command()
        with (self.directory / "log").open("ab") as log, pinned_here(self.place.core):
            # Of a group of its own: what it starts ends with it.
            process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL, cwd=ROOT,
                env={**os.environ, **self.environ()}, start_new_session=True,
            )  # fmt: skip
        self._process, self.pid = process, process.pid
        try:
            await eventually(self._answers, START_S)
        except TimeoutError:
            raise Worthless(f"{self.name} does not answer; {self.directory / 'log'} may tell why") from None

    async def _answers(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise Worthless(f"{self.name} has ended; {self.directory / 'log'} may tell why")
        try:
            answer = await ask("127.0.0.1", self.port, next(self.requests(question(MODEL))), START_S)
        except (ConnectionError, TimeoutError):
            return False
        return answer.status == 200

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                continue
            return


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
