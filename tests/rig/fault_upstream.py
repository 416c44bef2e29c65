"""A provider that does exactly what a script says, and remembers the truth.

Strategy: raw sockets, one handler per connection, no HTTP library. For each request it takes the script that the test
laid down for the request's tag (`user` in the body), else asks the planner, and plays it. The truth log has every
request that arrived whole, with the usage that was really put on the wire. As a process of its own
(`python -m tests.rig.fault_upstream --log truth.jsonl`) it serves a seeded mix and writes the log unbuffered, a line
when a request has arrived, when its usage is out, and at its end: it survives whatever happens to the door.
"""

import argparse
import asyncio
import contextlib
import os
import random
import socket
import struct
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from tests.rig.answers import Answer, shape_of
from tests.rig.steps import Chunk, Close, Delay, Pause, Planner, Received, Reset, Script, Send, Stall, Step, error

HEAD_BYTES_MAX = 1 << 20


def answer_well(received: Received) -> Script:
    """Answer as a healthy provider of the shape that the path names."""
    return Answer(shape=shape_of(received.path)).script(received)


class FaultUpstream:
    """The scripted provider. `async with FaultUpstream() as fu:` listens on a free port of loopback."""

    def __init__(self, planner: Planner = answer_well, *, port: int = 0, log: Path | None = None) -> None:
        self.planner = planner
        self.scripts: dict[str, Script | Planner] = {}
        self.greeting: Script = ()  # played when a connection is accepted, before anything is read
        self.received: list[Received] = []
        self.connections = 0
        self.open_connections = 0
        self._port = port
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if log else None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, backlog=4096, limit=1 << 22)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._log is not None:
            os.close(self._log)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def of(self, tag: str) -> list[Received]:
        """Return the requests with that tag, in order of arrival."""
        return [r for r in self.received if r.tag == tag]

    def one(self, tag: str) -> Received:
        """Return the only request with that tag."""
        found = self.of(tag)
        assert len(found) == 1, f"{len(found)} requests with tag {tag!r}"
        return found[0]

    async def wait_for(self, count: int, tag: str | None = None, *, ended: bool = False, timeout_s: float = 10) -> None:
        """Wait until so many requests (with that tag) have arrived, or have ended."""

        def there() -> bool:
            return sum((tag is None or r.tag == tag) and (not ended or r.ended != "") for r in self.received) >= count

        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(there)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        writer.transport.set_write_buffer_limits(high=0)  # drain waits until the kernel has everything
        try:
            await self._converse(self.connections, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the peer went, or the test is over
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.greeting and not await _play(self.greeting, None, reader, writer, self._note):
            return
        while (request := await _read_request(reader, number, len(self.received))) is not None:
            self.received.append(request)
            await self._note(request, "received")
            script = self.scripts.get(request.tag, self.planner)
            steps = script(request) if callable(script) else script
            try:
                goes_on = await _play(steps, request, reader, writer, self._note)
            except (ConnectionError, asyncio.CancelledError):
                request.ended = "peer_gone"
                raise
            finally:
                request.ended = request.ended or "played"
                await self._note(request, "ended")
            if not goes_on:
                return

    async def _note(self, request: Received, event: str) -> None:
        if self._log is not None:
            line = {"event": event, "seq": request.seq, "tag": request.tag, "path": request.path, "t": time.time()}
            line |= {"usage": request.usage, "ended": request.ended}
            os.write(self._log, orjson.dumps(line) + b"\n")
        async with self._news:
            self._news.notify_all()


async def _read_request(reader: asyncio.StreamReader, connection: int, seq: int) -> Received | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as fault:
        if fault.partial:
            raise
        return None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = [(k.strip().lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
    names = dict(headers)
    if names.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(names.get("content-length", "0")))
    return Received(seq, connection, method, path, headers, body, time.time())


async def _play(
    script: Script,
    request: Received | None,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    note: Any,
) -> bool:
    """Play the steps; tell whether the connection goes on."""
    for step in script:
        match step:
            case Send(data, usage) | Chunk(data, usage):
                framed = data if isinstance(step, Send) else b"%x\r\n%b\r\n" % (len(data), data)
                writer.write(framed)
                await writer.drain()
                if request is not None:
                    is_head = isinstance(step, Send) and data.startswith(b"HTTP/1.")
                    request.sent += b"" if is_head else data
                    if usage is not None:
                        request.usage = usage
                        await note(request, "usage")
            case Pause(until, reached):
                if reached is not None:
                    reached.set()
                await until.wait()
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Stall():
                while await reader.read(65536):
                    pass
                if request is not None:
                    request.ended = "peer_gone"
                return False
            case Close():
                if request is not None:
                    request.ended = "closed"
                return False
            case Reset():
                if writer.transport.is_closing():
                    raise ConnectionResetError("the peer was first")
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                if request is not None:
                    request.ended = "reset"
                return False
    return True


def seeded_mix(seed: int) -> Planner:
    """Return a planner that makes of each tag the same kind of answer, one in five of them faulty."""

    def plan(received: Received) -> Script:
        dice = random.Random(seed ^ zlib.crc32(received.tag.encode()))
        prompt = dice.randint(20, 60)
        answer = Answer(
            shape=shape_of(received.path),
            words=dice.randint(1, 30),
            prompt=prompt,
            completion=dice.randint(1, 200),
            cached=dice.choice((0, 0, dice.randint(0, prompt))),
        )
        steps: list[Step] = []
        for step in answer.script(received):
            steps.append(step)
            if isinstance(step, Chunk) and dice.random() < 0.3:
                steps.append(Delay(dice.random() * 0.02))
        fault = dice.random()
        if fault < 0.05:
            return error(dice.choice((429, 500, 503)), message="not now", type="server_error", code="busy")
        if fault < 0.10:
            return [Reset()]
        if fault < 0.20:
            return [*steps[: dice.randrange(1, len(steps))], Reset()]
        return steps

    return plan


async def main() -> None:
    """Serve the seeded mix until killed; the first line on stdout is the port."""
    options = argparse.ArgumentParser(description="A scripted provider with a truth log.")
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--log", type=Path, required=True)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    async with FaultUpstream(seeded_mix(chosen.seed), port=chosen.port, log=chosen.log) as fu:
        print(fu.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
