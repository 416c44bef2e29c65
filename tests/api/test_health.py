"""The operators' listener: what it serves, when it says that it is ready, and that there is nothing else."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from nexus_proxy.api import health as operators
from nexus_proxy.errors import LedgerError, LedgerUnavailable
from nexus_proxy.observe.metrics import Metrics
from nexus_proxy.request.appkeys import SERVICES
from nexus_proxy.request.services import Readiness


class Ledger:
    """A ledger and its reader, as broken as the test wants."""

    writable = True
    fault: Exception | None = None
    hangs = False

    async def ping(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
async def client(ledger: Ledger, readiness: Readiness) -> AsyncIterator[Any]:
    app = operators.application()
    services = SimpleNamespace(metrics=Metrics({"m": "p"}), readiness=readiness, ledger=ledger, reader=ledger)
    app[SERVICES] = cast(Any, services)
    async with TestClient(TestServer(app)) as found:
        yield found


async def ask(client: Any, path: str) -> tuple[int, str]:
    response = await client.get(path)
    return response.status, await response.text()


async def test_a_server_that_serves_is_alive_and_ready(client: Any) -> None:
    assert await ask(client, "/healthz") == (200, "alive\n")
    assert await ask(client, "/readyz") == (200, "ready\n")


async def test_d1_a_server_that_ends_is_alive_and_not_ready(client: Any, readiness: Readiness) -> None:
    readiness.shutting_down = True
    assert await ask(client, "/healthz") == (200, "alive\n")
    assert await ask(client, "/readyz") == (503, "shutting down\n")


async def test_d7_a_ledger_that_cannot_commit_is_not_ready(client: Any, ledger: Ledger) -> None:
    ledger.writable = False
    assert await ask(client, "/readyz") == (503, "the ledger cannot commit\n")


@pytest.mark.parametrize("fault", [OSError(), LedgerError("x"), LedgerUnavailable("x")], ids=repr)
async def test_d13_a_ledger_that_cannot_be_read_is_not_ready(client: Any, ledger: Ledger, fault: Exception) -> None:
    ledger.fault = fault
    status, text = await ask(client, "/readyz")
    assert (status, text) == (503, f"the ledger cannot be read ({type(fault).__name__})\n")


async def test_a_ledger_that_hangs_is_not_ready(client: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "READY_S", 0.01)
    ledger.hangs = True
    assert await ask(client, "/readyz") == (503, "the ledger cannot be read (TimeoutError)\n")


async def test_metrics_are_in_prometheus_text(client: Any) -> None:
    response = await client.get("/metrics")
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "# TYPE nexus_" in await response.text()


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/balance", "/admin", "/keys", "/debug"])
async def test_f10_there_is_nothing_else(client: Any, path: str) -> None:
    assert (await ask(client, path))[0] == 404


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_f10_nothing_is_changed_from_here(client: Any, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await client.request(method, path)).status == 405
