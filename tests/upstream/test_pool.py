"""The way to a provider: addresses, TLS, the connect deadline, and which connection is used again.

Strategy: raw servers that log every byte, before and inside TLS; certificates of an authority made here.
"""

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from nexus_proxy.config import Provider
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.errors import Overloaded, UpstreamTimeout, UpstreamUnreachable
from nexus_proxy.upstream.connection import Connection, Headers
from nexus_proxy.upstream.pool import IDLE_S, Upstream
from nexus_proxy.upstream.resolver import Resolver

SECRET = "sk-provider-canary"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def provider(base_url: str, **more: Any) -> Provider:
    plain = Provider(
        name="p",
        base_url=base_url,
        api_key=SECRET,
        dialect=Dialect("openai", ask_usage=True),
        allow_private=True,
        on_disconnect="drain",
        in_flight_max=2,
        retry_stale=False,
        ca_file=None,
    )
    return replace(plain, **more)


class Sink:
    """Waits for the end of one response."""

    def __init__(self) -> None:
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def on_head(self, status: int, headers: Headers) -> None:
        pass

    def on_body(self, data: bytes) -> None:
        pass

    def on_end(self) -> None:
        self.over.set_result("end")

    def on_broken(self, reason: str) -> None:
        self.over.set_result(reason)


class Server:
    """Answers each request with two bytes; `raw` is every byte that came, `clear` what was inside TLS."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.clear = bytearray()
        self.port = 0
        self.lines: list[ServerLine] = []

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None) -> AsyncIterator["Server"]:
        """Listen on loopback."""
        server = await asyncio.get_running_loop().create_server(lambda: ServerLine(self, tls), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            for line in self.lines:
                line.transport.abort()
            await asyncio.sleep(0)


class ServerLine(asyncio.Protocol):
    """One connection to the server; TLS is done here, so that the bytes outside of it are seen too."""

    transport: asyncio.Transport

    def __init__(self, server: Server, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._into, self._out_of = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = tls.wrap_bio(self._into, self._out_of, server_side=True) if tls is not None else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._server.lines.append(self)

    def data_received(self, data: bytes) -> None:
        self._server.raw += data
        if self._tls is not None:
            self._into.write(data)
            data = b""
            with contextlib.suppress(ssl.SSLError):  # there is nothing (more) to read, or the client has given up
                while piece := self._tls.read(65536):
                    data += piece
        self._server.clear += data
        if b"\r\n\r\n" in data:
            self._send(ANSWER)
        elif self._tls is None and data[:1] == b"\x16":
            self._send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        self.transport.write(self._out_of.read())

    def _send(self, data: bytes) -> None:
        if self._tls is None:
            self.transport.write(data)
        else:
            self._tls.write(data)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def context_for(authority: trustme.CA, name: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


async def ask(upstream: Upstream, connection: Connection) -> str:
    sink = Sink()
    connection.send(upstream.head(b"{}", stream=False), b"{}", sink)
    return await sink.over


@contextlib.asynccontextmanager
async def upstream_to(base_url: str, *, connect_s: float = 5.0, **more: Any) -> AsyncIterator[Upstream]:
    upstream = Upstream(provider(base_url, **more), connect_s=connect_s)
    yield upstream
    upstream.close()
    await asyncio.sleep(0.01)  # a TLS transport takes some turns of the loop to be gone


async def test_tls_with_an_own_authority_serves(authority: trustme.CA, ca_file: Path) -> None:
    async with (
        Server().running(context_for(authority, "localhost")) as server,
        upstream_to(f"https://localhost:{server.port}/v1", ca_file=ca_file) as upstream,
    ):
        connection = await upstream.connect()
        assert await ask(upstream, connection) == "end"
        assert f"authorization: bearer {SECRET}".encode() in server.clear.lower()
        assert SECRET.encode() not in server.raw


YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
BAD_TLS: dict[str, dict[str, Any]] = {
    "expired": {"name": "localhost", "not_before": YESTERDAY - datetime.timedelta(days=9), "not_after": YESTERDAY},
    "wrong_host": {"name": "other.test"},
    "unknown_authority": {"name": "localhost"},
    "plain_http": {},
}


@pytest.mark.parametrize("case", BAD_TLS)
async def test_b3_bad_tls_is_unreachable_and_no_byte_of_the_key_is_sent(
    authority: trustme.CA, ca_file: Path, case: str
) -> None:
    tls = context_for(authority, **BAD_TLS[case]) if BAD_TLS[case] else None
    trusted = None if case == "unknown_authority" else ca_file
    async with (
        Server().running(tls) as server,
        upstream_to(f"https://localhost:{server.port}/v1", ca_file=trusted) as upstream,
    ):
        with pytest.raises(UpstreamUnreachable) as caught:
            await upstream.connect()
        assert caught.value.retry
        assert bytes(server.raw).startswith(b"\x16\x03"), "no handshake was tried"
        assert b"Authorization" not in server.raw + server.clear
        assert SECRET.encode() not in server.raw + server.clear
        assert upstream.take_idle() is None


async def test_b4_a_connect_that_nobody_answers_is_a_timeout() -> None:
    """Loopback drops the SYN of whoever finds the queue of accepted connections full."""
    with socket.socket() as deaf, contextlib.ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        async with upstream_to(f"http://127.0.0.1:{port}/v1", connect_s=0.2) as upstream:
            with pytest.raises(UpstreamTimeout):
                await upstream.connect()


async def test_b3_a_handshake_that_hangs_is_within_the_connect_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        async with upstream_to(f"https://127.0.0.1:{silent.getsockname()[1]}/v1", connect_s=0.2) as upstream:
            with pytest.raises(UpstreamTimeout):
                await upstream.connect()


async def test_b2_a_name_that_hangs_is_within_the_connect_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Resolver) -> list[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(Resolver, "addresses", never)
    async with upstream_to("https://hangs.test/v1", connect_s=0.05) as upstream:
        with pytest.raises(UpstreamTimeout):
            await upstream.connect()


async def test_b1_b2_no_listener_and_no_name_are_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with upstream_to(f"http://127.0.0.1:{unused.getsockname()[1]}/v1") as upstream:
            with pytest.raises(UpstreamUnreachable):
                await upstream.connect()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [])
    async with upstream_to("https://nothing.test/v1") as upstream:
        with pytest.raises(UpstreamUnreachable):
            await upstream.connect()


# --- which addresses ----------------------------------------------------------------------------------------------


def resolves(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def found(self: Resolver) -> list[str]:
        return list(addresses)

    monkeypatch.setattr(Resolver, "addresses", found)


INNER = ["127.0.0.1", "10.1.2.3", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1", "fe80::1%lo", "fd00::1", ""]


@pytest.mark.parametrize("address", INNER)
async def test_f7_a_public_name_that_turns_inwards_is_refused_at_connect_time(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolves(monkeypatch, address)
    async with Server().running(None) as server:
        async with upstream_to(f"https://api.example.com:{server.port}/v1", allow_private=False) as upstream:
            with pytest.raises(UpstreamUnreachable):
                await upstream.connect()
        assert (server.lines, bytes(server.raw)) == ([], b"")


async def test_f7_rebinding_of_the_real_resolver_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server().running(None) as server:
        row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [row])
        async with upstream_to(f"https://api.example.com:{server.port}/v1", allow_private=False) as upstream:
            with pytest.raises(UpstreamUnreachable):
                await upstream.connect()
        assert server.raw == b""


async def test_f7_a_public_address_without_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A private name over plain HTTP that suddenly points outside would show the key to the network."""
    tried: list[Any] = []

    async def connect(*args: Any, **options: Any) -> Any:
        tried.append(args)
        raise OSError

    resolves(monkeypatch, "93.184.216.34")
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
    async with upstream_to("http://inner.example.com/v1") as upstream:
        with pytest.raises(UpstreamUnreachable):
            await upstream.connect()
    assert tried == []


async def test_an_address_that_does_not_answer_or_is_not_allowed_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Server().running(None) as server:
        resolves(monkeypatch, "93.184.216.34", "127.0.0.2", "127.0.0.1")
        async with upstream_to(f"http://several.test:{server.port}/v1") as upstream:
            assert await ask(upstream, await upstream.connect()) == "end"
        assert len(server.lines) == 1


# --- connections that are kept ------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running(None) as running:
        yield running


@pytest.fixture
async def upstream(server: Server) -> AsyncIterator[Upstream]:
    async with upstream_to(f"http://127.0.0.1:{server.port}/v1") as found:
        yield found


async def used(upstream: Upstream) -> Connection:
    connection = await upstream.connect()
    assert await ask(upstream, connection) == "end"
    return connection


async def test_the_connection_that_was_used_last_is_used_first(upstream: Upstream) -> None:
    first, second = await used(upstream), await used(upstream)
    upstream.keep(first)
    upstream.keep(second)
    assert upstream.take_idle() is second
    assert upstream.take_idle() is first
    assert upstream.take_idle() is None
    assert await ask(upstream, first) == "end"


async def test_b7_an_old_idle_connection_is_dropped(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    first, second = await used(upstream), await used(upstream)
    clock = pytest.MonkeyPatch()
    try:
        clock.setattr(loop, "time", lambda: now)
        upstream.keep(first)
        clock.setattr(loop, "time", lambda: now + 10)
        upstream.keep(second)
        clock.setattr(loop, "time", lambda: now + IDLE_S + 1)
        assert upstream.take_idle() is second
    finally:
        clock.undo()
    assert upstream.take_idle() is None
    assert not first.reusable


async def test_b7_an_idle_connection_that_ends_is_forgotten(upstream: Upstream) -> None:
    connection = await used(upstream)
    upstream.keep(connection)
    connection.abort()
    assert upstream.take_idle() is None  # not even before the loop has told that it is lost
    upstream.keep(connection)
    assert upstream.take_idle() is None
    other = await used(upstream)
    upstream.keep(other)
    other.abort()
    await asyncio.sleep(0.01)
    assert upstream.take_idle() is None


async def test_close_drops_idle_and_busy_connections(upstream: Upstream) -> None:
    idle, busy = await used(upstream), await upstream.connect()
    upstream.keep(idle)
    upstream.close()
    assert upstream.take_idle() is None
    assert not idle.reusable
    assert await ask(upstream, busy) != "end"


async def test_c6_a_connection_that_was_paused_reads_again_when_it_is_kept(upstream: Upstream) -> None:
    connection = await used(upstream)
    connection.pause()
    upstream.keep(connection)
    again = upstream.take_idle()
    assert again is connection
    async with asyncio.timeout(2):
        assert await ask(upstream, again) == "end"


# --- heads and places ---------------------------------------------------------------------------------------------


HEADS = [
    ("https://api.example.com/v1", "k", b"/v1/chat/completions", b"api.example.com"),
    ("https://api.example.com:8443/compat/v1", "k", b"/compat/v1/chat/completions", b"api.example.com:8443"),
    ("https://api.example.com", "", b"/chat/completions", b"api.example.com"),
    ("https://[2001:db8::1]:444/v1", "k", b"/v1/chat/completions", b"[2001:db8::1]:444"),
]


@pytest.mark.parametrize(("base_url", "key", "path", "host"), HEADS)
async def test_f5_a_head_has_our_lines_and_no_others(base_url: str, key: str, path: bytes, host: bytes) -> None:
    async with upstream_to(base_url, api_key=key) as upstream:
        for stream, accept in ((False, b"application/json"), (True, b"text/event-stream")):
            first, *lines = upstream.head(b"x" * 70_000, stream=stream).split(b"\r\n")
            assert first == b"POST " + path + b" HTTP/1.1"
            found = dict(line.split(b": ", 1) for line in lines[:-2])
            expected = {
                b"Host": host,
                b"Content-Type": b"application/json",
                b"Accept-Encoding": b"identity",
                b"User-Agent": b"nexus-proxy",
                b"Accept": accept,
                b"Content-Length": b"70000",
            }
            assert found == expected | ({b"Authorization": b"Bearer " + key.encode()} if key else {})
            assert lines[-2:] == [b"", b""]


async def test_b46_more_exchanges_than_places_are_refused_not_queued() -> None:
    async with upstream_to("https://api.example.com/v1", in_flight_max=2) as upstream:
        upstream.enter()
        upstream.enter()
        with pytest.raises(Overloaded) as caught:
            upstream.enter()
        assert caught.value.retry_after_ns == 1_000_000_000
        upstream.leave()
        upstream.enter()
