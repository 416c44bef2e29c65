"""Group F of the failure catalogue: secrets, tenants, and what a stranger can reach.

Strategy: canaries. Words that appear nowhere else are put where a secret could leak from, and looked for everywhere.
"""

import asyncio
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy import config
from nexus_proxy.errors import ConfigError
from tests.rig.door import CHAT
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.house import House, open_house
from tests.rig.raw_client import ask, get, post
from tests.rig.settings import UPSTREAM_KEY, settings, write
from tests.rig.steps import Reset, error, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMPT = "canary-prompt-51fe"
USER = "canary-user-77aa"
FAULTS: list[Any] = [
    None, error(400, message=f"bad: {UPSTREAM_KEY}"), error(401, message=UPSTREAM_KEY), error(429, message="x"),
    error(500, message="x"), [Reset()], whole(200, b"<html>"),
    whole(200, b'{"error":{"message":"' + UPSTREAM_KEY.encode() + b'"}}'),
]  # fmt: skip


async def test_f2_f3_f4_no_key_prompt_or_trace_in_logs_metrics_or_errors(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        key = house.door.key
        answers = []
        for script in FAULTS:
            for stream in (False, True):
                members = {"stream": stream, "messages": [{"role": "user", "content": PROMPT}], "metadata": {"a": USER}}
                answers.append((await house.ask(script, f"X-Canary: {USER}", **members)).answer)
        bad = (
            post(CHAT, {"model": USER, "messages": [{"role": "user", "content": PROMPT}]}, key),
            post(CHAT, {"model": "m-openai", "messages": PROMPT}, key),
            post(CHAT, f'{{"model":"m-openai","x":{PROMPT}'.encode(), key),
            post(f"{CHAT}?key={key}&p={PROMPT}", {}, key[:-1] + "0"),
            post(f"/v1/{PROMPT}", {}, key),
            get(f"/v1/models/{USER}", key),
            f"POST {CHAT} HTTP/1.1\r\nAuthorization: Bearer {key}\r\nbroken {PROMPT}\r\n\r\n".encode(),
            f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\x01\r\n\r\n".encode(),
        )
        answers += [await house.door.raw(data) for data in bad]
        metrics = (await house.door.operators("/metrics")).body.decode()
    everything = {"log": (tmp_path / "door.log").read_text(), "metrics": metrics}
    for suffix in ("", "-wal"):
        if (file := tmp_path / f"nexus.db{suffix}").exists():
            everything[f"ledger{suffix}"] = file.read_bytes().decode("latin-1")
    for answer in answers:
        if answer.status != 200:
            everything[f"answer {answer.status}"] = answer.body.decode()
            assert "Traceback" not in answer.body.decode()
            assert ".py" not in answer.body.decode()
            assert answer.error
    for place, text in everything.items():
        for canary in (key, key[12:40], UPSTREAM_KEY, PROMPT, USER):
            echo_of_our_own = place.startswith("answer") and canary in (USER, PROMPT)
            assert canary not in text or echo_of_our_own, f"{canary} in {place}"
    assert '"request_id"' in everything["log"], "nothing was logged, so nothing was proved"


async def test_f12_one_json_line_per_request_whatever_is_in_it(tmp_path: Path) -> None:
    evil = 'a\n{"event":"forged"}\r\n\x1b[31m\u2028'
    async with open_house(tmp_path) as house:
        before = len(house.door.log_path.read_text().splitlines())
        for _ in range(3):
            await house.door.chat(model=evil, user=evil)
        await house.door.chat("", "User-Agent: x\\n{}")
    lines = house.door.log_path.read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert not [event for event in events if event.get("event") == "forged"]
    assert before < len(lines) <= before + 4 + 2  # and what the stop says


async def test_f5_only_our_own_headers_go_upstream(shared_house: House) -> None:
    asked = await shared_house.ask(
        None, "Cookie: a=b", "X-Forwarded-For: 1.2.3.4", "X-Anything: zebra", "OpenAI-Organization: o", "Accept: x/y",
        "User-Agent: client", "Upgrade: h2c", "X-Stainless-Lang: python", "Idempotency-Key: 7", "Proxy-Connection: p"
    )  # fmt: skip
    received = asked.received
    names = [name for name, _ in received.headers]
    assert sorted(names) == sorted(set(names))
    ours = {"host", "authorization", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}
    assert set(names) <= ours | {"connection"}
    assert received.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert received.header("accept-encoding") == "identity"
    text = str(received.headers)
    assert not [word for word in ("zebra", "1.2.3.4", "a=b", "python", shared_house.door.key) if word in text]
    await asked.is_exact()


async def test_f9_a_url_in_a_message_is_never_fetched(shared_house: House) -> None:
    async with FaultUpstream() as canary:
        part = {"type": "image_url", "image_url": {"url": f"{canary.url}/a.png"}}
        asked = await shared_house.ask(
            messages=[{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]
        )
        assert asked.answer.status == 200
        assert canary.connections == 0


async def test_f10_f26_administration_and_figures_are_not_on_the_clients_listener(shared_house: House) -> None:
    key = shared_house.door.key
    for path in (
        "/metrics",
        "/healthz",
        "/readyz",
        "/topup",
        "/admin",
        "/account_create",
        "/docs",
        "/debug",
        "/openapi.json",
    ):
        for headers in (
            (),
            ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: localhost:9090", "X-Original-Url: /metrics"),
        ):
            assert (await shared_house.door.raw(get(path, key, *headers))).status == 404
    for path in ("/topup", "/account_create", "/v1/models", CHAT, "/v1/balance", "/"):
        for data in (get(path, key), post(path, {"account": "acme", "amount": "5"}, key)):
            answer = await ask("127.0.0.1", shared_house.door.admin_port, data)
            assert answer.status in (404, 405)
    socket_file = shared_house.door.ledger_path.with_name("nexus.db.sock")
    assert stat.S_ISSOCK(socket_file.stat().st_mode)
    assert stat.S_IMODE(socket_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nX-Injected: 1", "a\x00b", "a\x7f", "é" * 10], ids=ascii)
async def test_f11_nothing_that_is_reflected_breaks_a_header(shared_house: House, value: str) -> None:
    answers = [
        await shared_house.door.chat(model=value),
        await shared_house.door.raw(post(CHAT, {"model": "m-openai", "messages": [], value: 1}, shared_house.door.key)),
        await shared_house.door.raw(
            get("/v1/models/" + "".join(f"%{b:02x}" for b in value.encode()), shared_house.door.key)
        ),
    ]
    for answer in answers:
        assert answer.status in (400, 404)
        assert answer.header("x-injected") is None
        assert answer.error


async def test_f11_a_clients_request_id_is_not_taken_over(shared_house: House) -> None:
    answer = await shared_house.door.chat("", "X-Request-Id: mine-1", "X-Client-Request-Id: mine-2")
    assert answer.request_id not in ("mine-1", "mine-2")


async def test_f18_a_tenant_sees_only_its_own(shared_house: House) -> None:
    rich = await shared_house.door.mint("tenant-a", topup="77.00")
    poor = await shared_house.door.mint("tenant-b", topup="3.00", models=["m-qwen"])
    assert (await shared_house.door.balance(rich))["balance"] == 77
    assert (await shared_house.door.balance(poor))["balance"] == 3
    listed = (await shared_house.door.raw(get("/v1/models", poor))).json["data"]
    assert [model["id"] for model in listed] == ["m-qwen"]
    for data in (get("/v1/models/m-openai", poor), shared_house.door.request(key=poor, model="m-openai")):
        answer = await shared_house.door.raw(data)
        assert (answer.status, answer.code) == (404, "model_not_found")
    for path in ("/v1/balance?account=tenant-a", "/v1/balance?user=tenant-a"):
        assert (await shared_house.door.raw(get(path, poor, "X-Account: tenant-a"))).json["balance"] == 3
    done = await shared_house.door.chat(key=rich)
    for path in (
        f"/v1/chat/completions/{done.request_id}",
        f"/v1/requests/{done.request_id}",
        f"/v1/usage/{done.request_id}",
    ):
        assert (await shared_house.door.raw(get(path, poor))).status in (404, 405)


@pytest.mark.parametrize("text", ["' OR 1=1 --", "'; DROP TABLE accounts; --", '" UNION SELECT 1', "%", "\\' OR ''='"])
async def test_f19_sql_in_any_string_is_only_text(shared_house: House, text: str) -> None:
    before = shared_house.door.sql("SELECT account, plan FROM balances ORDER BY account")
    for key in (text, f"sk-ai-nexus-{text}", shared_house.door.key + text):
        answer = await shared_house.door.raw(post(CHAT, shared_house.door.body(), key))
        assert answer.status == 401
    assert (await shared_house.door.chat(model=text)).status == 404
    assert (await shared_house.ask(metadata={"a": text}, safety_identifier=text)).answer.status == 200
    assert shared_house.door.sql("SELECT account, plan FROM balances ORDER BY account") == before


async def test_f20_keys_that_differ_in_one_character_are_different_keys(shared_house: House) -> None:
    key = shared_house.door.key
    for at in (-1, -7, 20, 12):
        other = list(key)
        other[at] = "A" if other[at] != "A" else "B"
        assert (await shared_house.door.chat(key="".join(other))).status == 401
    for changed in (key.lower(), key.upper(), key[:-1], key + "A", " " + key):
        if changed != key and changed.strip() != key:
            assert (await shared_house.door.chat(key=changed)).status == 401


async def test_f21_an_account_cannot_be_changed_from_a_request(shared_house: House) -> None:
    key = await shared_house.door.mint("meek", topup="2.00", plan="free")
    shown = await shared_house.door.admin("account_show", account="meek")
    members: dict[str, Any] = {
        "role": "admin",
        "balance": 1000,
        "plan": "wide",
        "tenant_id": 1,
        "account": "acme",
        "account_id": 1,
        "rpm": 9,
    }
    answer = await shared_house.door.chat("", "X-Account: acme", "X-Plan: wide", key=key, **members)
    assert answer.status in (200, 400)
    after = await shared_house.door.admin("account_show", account="meek")
    assert (after["plan"], after["suspended"], after["total_paid"]) == (shown["plan"], False, shown["total_paid"])
    if answer.status == 200:
        assert (await shared_house.door.row(answer))["account"] == "meek"


@pytest.mark.parametrize("environ", [{}, {"FU_KEY": ""}, {"FU_KEY": "  "}, {"FU_KEY": "a\r\nb"}], ids=repr)
async def test_f22_a_secret_that_is_missing_or_empty_stops_the_start(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "nexus.toml", settings("http://127.0.0.1:1"))
    with pytest.raises(ConfigError, match=r"FU_KEY|api_key"):
        config.load(tmp_path / "nexus.toml", environ)


async def test_f23_every_unacceptable_key_gets_the_same_answer(shared_house: House, tmp_path: Path) -> None:
    revoked = await shared_house.door.mint("revoked")
    shown = await shared_house.door.admin("account_show", account="revoked")
    await shared_house.door.admin("key_revoke", key_id=shown["keys"][0]["id"])
    async with open_house(tmp_path) as other:
        unknown = other.door.key
    answers = [
        await shared_house.door.chat(key=key)
        for key in (revoked, unknown, "nonsense", "sk-ai-nexus-x", "sk-" + "a" * 60)
    ]
    answers.append(await shared_house.door.raw(post(CHAT, shared_house.door.body(), None)))
    assert {answer.status for answer in answers} == {401}
    assert len({bytes(answer.body) for answer in answers}) == 1
    volatile = {"x-request-id", "date"}
    shapes = {tuple((n, v) for n, v in answer.headers if n not in volatile) for answer in answers}
    assert len(shapes) == 1
    assert answers[0].header("x-should-retry") == "false"


async def test_f23_an_expired_key_is_refused(shared_house: House) -> None:
    soon = (datetime.now(UTC) + timedelta(milliseconds=400)).isoformat()
    key = await shared_house.door.mint("expiring", expires=soon)
    assert (await shared_house.door.raw(get("/v1/balance", key))).status == 200
    await asyncio.sleep(0.4)
    answer = await shared_house.door.raw(get("/v1/balance", key))
    assert (answer.status, answer.code) == (401, "invalid_api_key")


async def test_f6_a_provider_that_echoes_its_key_in_an_error_is_not_relayed(shared_house: House) -> None:
    for status in (400, 401, 422, 429, 500):
        asked = await shared_house.ask(error(status, f"X-Echo: {UPSTREAM_KEY}", message=f"key {UPSTREAM_KEY} is bad"))
        assert UPSTREAM_KEY not in asked.answer.body.decode() + str(asked.answer.headers)
