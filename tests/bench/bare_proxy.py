"""What aiohttp alone costs as a proxy: its server and its client, nothing read, nothing counted, nothing written down.

Strategy: the yardstick beside the door, in the same run on the same core. It runs as a process of its own and prints
its port: `python -m tests.bench.bare_proxy http://127.0.0.1:PORT`.
"""

import asyncio
import sys

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web


async def main(upstream_url: str) -> None:
    """Serve until killed."""
    session = ClientSession(
        connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), timeout=ClientTimeout(), auto_decompress=False
    )

    async def relay(request: web.Request) -> web.Response:
        body = await request.read()
        headers = {"Content-Type": "application/json", "Authorization": request.headers["Authorization"]}
        async with session.post(upstream_url + request.path, data=body, headers=headers) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), headers={"Content-Type": "application/json"}
            )

    app = web.Application()
    app.router.add_post("/v1/chat/completions", relay)
    runner = web.AppRunner(app, access_log=None)
    async with session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
