"""The composition root: what is opened is closed again, and no completion goes round the chain."""

import gc
import socket
from pathlib import Path

import pytest

from nexus_proxy import config
from nexus_proxy.chain import CHAIN
from nexus_proxy.server import Server, metrics_of
from tests.rig.raw_client import ask, get, post
from tests.rig.settings import ENVIRON, settings, write


def configured(directory: Path, **server: str) -> config.Config:
    write(directory / "nexus.toml", settings("http://127.0.0.1:1", {"server": server}))
    return config.load(directory / "nexus.toml", ENVIRON)


def test_f32_the_order_of_the_stages() -> None:
    assert [stage.__name__ for stage in CHAIN] == ["boundary", "auth", "ratelimit", "metering"]


@pytest.mark.parametrize("name", ["listen", "admin_listen"])
async def test_an_address_that_is_taken_is_named_and_leaves_nothing_open(tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: "):
            await Server(configured(tmp_path, **{name: address})).start()
    door = Server(configured(tmp_path))  # the ledger's lock is free again
    await door.start()
    await door.stop()
    gc.collect()  # what was left open would warn, and a warning is an error


def test_metrics_know_the_provider_of_each_model(tmp_path: Path) -> None:
    text = metrics_of(configured(tmp_path)).render()[0].decode()
    assert 'nexus_requests_total{code="ok",model="m-qwen",provider="p-qwen",status="200"} 0.0' in text
    assert 'nexus_usage_missing_total{provider="p-deepseek"} 0.0' in text


async def test_a_door_serves_both_listeners_until_it_is_stopped(tmp_path: Path) -> None:
    door = Server(configured(tmp_path))
    await door.start()
    try:
        assert (await ask("127.0.0.1", door.admin_port, get("/readyz"))).status == 200
        for path in ("/v1/chat/completions", "/v1/chat/completions/", "//v1/chat/completions"):
            answer = await ask("127.0.0.1", door.port, post(path, {}, None))
            assert answer.status in (401, 404), "a completion without a key"
        assert (await ask("127.0.0.1", door.port, get("/v1/models"))).code == "invalid_api_key"
    finally:
        await door.stop()
    for port in (door.port, door.admin_port):
        with pytest.raises(ConnectionError):
            await ask("127.0.0.1", port, get("/readyz"))


async def test_d1_a_door_that_was_stopped_can_be_started_anew(tmp_path: Path) -> None:
    for _ in range(2):
        door = Server(configured(tmp_path))
        await door.start()
        await door.stop()
