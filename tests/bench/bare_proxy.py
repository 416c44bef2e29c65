"""What aiohttp alone costs as a proxy: its server and its client, nothing read, nothing counted, nothing written down.

Strategy: a yardstick beside the door, in the same run on the same core. It runs as a process of its own:
`python -m tests.bench.bare_proxy http://127.0.0.1:UPSTREAM PORT`.
"""

import asyncio
import sys

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

_BODY_BYTES_MAX = 16 * 1024 * 1024


async def main(upstream_url: str, port: int) -> None:
    """Serve until killed."""
    session = ClientSession(
        connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), timeout=ClientTimeout(), auto_decompress=False
    )

    async def relay(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"Content-Type": "application/json", "Authorization": request.headers["Authorization"]}
        async with session.post(upstream_url + request.path, data=body, headers=headers) as answer:
            kind = {"Content-Type": answer.headers["Content-Type"]}
            if answer.content_length is not None:
                return web.Response(status=answer.status, body=await answer.read(), headers=kind)
            response = web.StreamResponse(status=answer.status, headers=kind)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=_BODY_BYTES_MAX)
    app.router.add_post("/v1/chat/completions", relay)
    runner = web.AppRunner(app, access_log=None)
    async with session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096)
        await site.start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
