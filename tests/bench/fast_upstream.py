"""A provider that costs next to nothing: every request gets the same completion, written from the parser's callback.

Strategy: raw bytes on a protocol, one write an answer, connections kept. It runs as a process of its own and prints its
port: `python -m tests.bench.fast_upstream`.
"""

import asyncio
from typing import cast

import uvloop

from tests.bench.framing import cut
from tests.rig.answers import Answer

ANSWER = Answer(words=40, prompt=25, completion=120, cached=10)
BODY = ANSWER.document({"model": "real-openai"})
_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class FastUpstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (message := cut(self._received)) is not None:
            self._received = message[2]
            self._transport.write(_RESPONSE)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(FastUpstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
