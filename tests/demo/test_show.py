"""`nexus-proxy demo`, the whole of it: a real door, a real provider, a real ledger."""

import asyncio
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from openai import OpenAI
from rich.console import Console

from nexus_proxy.cli.operate import demo
from nexus_proxy.demo import scene, show
from nexus_proxy.demo.shapes import SHAPES

PROGRAM = [sys.executable, "-m", "nexus_proxy"]


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}


def test_once_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    command = [*PROGRAM, "demo", "--once"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment(tmp_path), cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\x1b" not in done.stdout  # piped: no colours
    assert show.PROMPT in done.stdout
    assert f"You said: “{show.PROMPT}”" in done.stdout
    for word in ("reported", "cached input", "balance before  5.00 USD", "agree"):
        assert word in done.stdout
    (due,) = re.findall(r"to the nano-dollar\s+([\d.]+)", done.stdout)
    (after,) = re.findall(r"balance after\s+([\d.]+) USD", done.stdout)
    assert after == f"{5 - float(due):.9f}".rstrip("0")
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_that_knows_only_ascii_is_shown_everything_too(tmp_path: Path) -> None:
    poor = {**environment(tmp_path), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    poor.pop("PYTHONIOENCODING", None)
    done = subprocess.run([*PROGRAM, "demo", "--once"], capture_output=True, timeout=60, check=False, env=poor)
    assert done.returncode == 0, done.stderr
    assert b"agree to the last nano-dollar" in done.stdout
    assert done.stdout.isascii()


def test_once_fails_if_the_charge_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    # what it checks against, not what it serves
    monkeypatch.setattr("nexus_proxy.demo.show.PRICES", {**scene.PRICES, "output": "2.01"})
    out = io.StringIO()
    assert show.run(Console(file=out, width=200), once=True) == 1
    assert "✗ the balance went down by" in out.getvalue()
    assert "✗ the row's charge is" in out.getvalue()


@pytest.mark.parametrize("dialect", sorted(SHAPES))
def test_every_dialect_is_shown_with_the_same_proof(monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
    monkeypatch.setattr("nexus_proxy.demo.show.scene", functools.partial(scene.scene, pace_s=0))
    out = io.StringIO()
    assert show.run(Console(file=out, width=200), once=True, dialect=dialect) == 0, out.getvalue()
    shown = out.getvalue()
    assert re.search(rf"dialect +{dialect}\b", shown)
    assert f"You said: “{show.PROMPT}”" in shown
    assert "agree to the last nano-dollar" in shown


@pytest.mark.parametrize("dialect", ["openai", "minimax"])
async def test_the_program_that_it_prints_runs(capsys: pytest.CaptureFixture[str], dialect: str) -> None:
    async with scene.scene(dialect=dialect, pace_s=0) as stage:
        (program,) = (text for title, text in show.snippets(stage).items() if title.startswith("Python"))
        await asyncio.to_thread(exec, program, {})
    assert capsys.readouterr().out.count("“Hello!”") == 1


@pytest.mark.parametrize(("named", "spoken"), [("moonshot-cn", "moonshot"), ("zai", "zhipu"), ("qwen", "qwen")])
def test_a_provider_stands_for_its_dialect(named: str, spoken: str) -> None:
    (option,) = (param for param in demo.params if param.name == "dialect")
    assert option.type.convert(named, option, None) == spoken


def test_a_dialect_that_nobody_speaks_is_wrong_usage() -> None:
    done = subprocess.run([*PROGRAM, "demo", "--dialect", "latin"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "moonshot" in done.stderr
    assert "not 'latin'" in " ".join(done.stderr.split())


def test_it_serves_until_interrupted(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo"], stdout=subprocess.PIPE, text=True, env=environment(tmp_path), cwd=tmp_path
    ) as demo:
        try:
            assert demo.stdout is not None
            said = ""
            while "Serving until Ctrl-C" not in said:
                line = demo.stdout.readline()
                assert line, said
                said += line
            (url,) = re.findall(r'base_url="([^"]+)"', said)
            (key,) = re.findall(r'api_key="([^"]+)"', said)
            client = OpenAI(base_url=url, api_key=key)
            stream = client.chat.completions.create(
                model="demo-chat", messages=[{"role": "user", "content": "Hello!"}], stream=True
            )
            assert "“Hello!”" in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            (config,) = re.findall(r"nexus-proxy --config (\S+) account list", said)
            listed = subprocess.check_output([*PROGRAM, "--config", config, "account", "list", "--json"])
            assert 0 < 5 - float(json.loads(listed)[0]["balance"]) < 0.01
            models = {row["model"]: row for row in json.loads(_ask("usage", "--by", "model", config=config))}
            assert models["demo-chat"]["requests"] == 2
            assert json.loads(_ask("config", "check", config=config))["models"] == ["demo-chat"]
            made = datetime.fromtimestamp(client.models.retrieve("demo-chat").created, UTC)
            assert abs(datetime.now(UTC) - made) < timedelta(hours=1)
            (metrics,) = re.findall(r"metrics\s+(http://\S+/metrics)", said)
            with urllib.request.urlopen(metrics) as answer:
                assert b"nexus_requests" in answer.read()
        finally:
            demo.send_signal(signal.SIGINT)
        assert demo.stdout.read().endswith("The demo's ledger is gone.\n")
        assert demo.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


def _ask(*words: str, config: str) -> bytes:
    return subprocess.check_output([*PROGRAM, "--config", config, *words, "--json"])
