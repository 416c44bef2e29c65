"""One verb of the command line, run on a terminal or in this process, and what it wrote."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.cli.main import run


def tiered(*, markup: str, also: str, more: str = "", price: str) -> str:
    """Return a configuration with DeepSeek, the provider `also`, and a model of a provider of our own, mine/tiered."""
    return f"""
[billing]
markup = "{markup}"
fx = {{ CNY = "0.1389" }}
[providers.deepseek]
api_key_env = "A_SECRET_THAT_IS_NOT_SET"
[providers.{also}]
api_key_env = "A_SECRET_THAT_IS_NOT_SET"
[providers.local]
dialect = "openai"
base_url = "http://127.0.0.1:9/v1"
allow_private = true
[models."mine/tiered"]
provider = "local"
context = 32768
max_output = 10000
{more}
[models."mine/tiered".price]
{price}
"""


class Verbs:
    """Runs verbs in this process with one configuration. `err` is what the last one wrote to stderr."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        """Run one verb, expect the exit code, and return its stdout."""
        got = run(["--config", str(self.path), *words])
        out, self.err = self._capsys.readouterr()
        assert got == code, out + self.err
        return out

    def json(self, *words: str) -> Any:
        """Run one verb with `--json`."""
        return json.loads(self(*words, "--json"))


def on_a_terminal(columns: int, *words: str) -> list[str]:
    """Run one verb on a terminal so wide, and return the lines that it shows, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    command = [sys.executable, "-m", "nexus_proxy", *words]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**environ, "TERM": "xterm"}) as program:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 65_536):
                said += part
    os.close(ours)
    assert program.returncode == 0, said
    return re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).replace("\r", "").splitlines()
