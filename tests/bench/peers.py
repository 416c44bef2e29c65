"""Other gateways, for comparison; only on request, since they are installed from the network first.

Strategy: each as its own documentation runs it for one user, with one process, no database and nothing logged that it
does not log by itself. They write answers anew, so an answer is right if its text and its counts are. The versions are
pinned: a figure should stay what it was, and not every release of everybody can be trusted.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

import orjson

from tests.bench.answers import ANSWER
from tests.bench.systems import MODEL, Place, Server, Worthless, head

LITELLM_VERSION = "1.103.7"
_APART = {"PYTHONPATH": ""}  # its modules are its own
PORTKEY_VERSION = "1.15.2"


class Peer(Server):
    """A gateway of somebody else's."""

    exact = False

    def right(self, body: bytes) -> bool:
        try:
            answer = orjson.loads(body)
            text, counts = answer["choices"][0]["message"]["content"], answer["usage"]
        except (ValueError, LookupError, TypeError):
            return False
        said = f"{ANSWER.text}{ANSWER.words - 1} "
        return bool(text.endswith(said) and counts["completion_tokens"] == ANSWER.completion)


class LiteLLM(Peer):
    """LiteLLM's proxy, without its database."""

    name = "litellm"
    _KEY = "sk-bench"

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        super().__init__(place)
        self._say = say
        self._venv = self.directory / f"venv-{LITELLM_VERSION}"  # a kept one of another release is another peer

    async def start(self) -> None:
        if not (self._venv / "bin" / "litellm").exists():
            self._say(f"installing LiteLLM {LITELLM_VERSION}")
            await _run(sys.executable, "-m", "venv", str(self._venv))
            await _run(str(self._venv / "bin" / "pip"), "install", "-q", f"litellm[proxy]=={LITELLM_VERSION}")
        await super().start()

    def command(self) -> Sequence[str]:
        provider = {
            "model": "openai/real-openai",
            "api_base": f"{self.place.upstream_url}/v1",
            "api_key": "sk-upstream",
        }
        settings = {
            "model_list": [{"model_name": MODEL, "litellm_params": provider}],
            "general_settings": {"master_key": self._KEY},
        }
        path = self.directory / "config.yaml"
        path.write_bytes(orjson.dumps(settings))  # JSON is YAML
        binary = str(self._venv / "bin" / "litellm")
        return (binary, "--config", str(path), "--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1")

    def environ(self) -> Mapping[str, str]:
        return {**_APART, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}  # it fetches nothing


class Portkey(Peer):
    """Portkey's gateway, which keeps no account of anything."""

    name = "portkey"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        provider = f"x-portkey-custom-host: {place.upstream_url}/v1"
        self.heads = [head("sk-bench", "x-portkey-provider: openai", provider)]

    def command(self) -> Sequence[str]:
        npx = shutil.which("npx")
        if npx is None:
            raise Worthless("portkey: there is no npx")
        return (npx, "--yes", f"@portkey-ai/gateway@{PORTKEY_VERSION}", f"--port={self.port}", "--headless")

    def environ(self) -> Mapping[str, str]:
        return {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **_APART})
    if await process.wait() != 0:
        raise Worthless(f"{' '.join(command)} has failed")
