"""What `nexus-proxy demo` shows: one streamed request, arriving live, and where its money went.

Strategy: be an ordinary client over real sockets and an ordinary reader of the ledger; print each witness as it
speaks, and end with whether they agree.
"""

import asyncio
import contextlib
import json
import shlex
import signal
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import aiohttp
import uvloop
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from nexus_proxy.demo.failures import COMMAND, HIDDEN, KINDS, LATE
from nexus_proxy.demo.proof import Seen, charge, disagreements, lines
from nexus_proxy.demo.scene import ACCOUNT, MODEL, PRICES, SYSTEM, Scene, scene
from nexus_proxy.demo.shapes import Counts
from nexus_proxy.errors import Refused
from nexus_proxy.ledger.sqlite import readonly

PROMPT: Final = "Hello! What happens to my money while you talk?"
SHOWING_S: Final = 30.0
_ROW: Final = (
    *("request_id", "account", "key_hint", "model", "streamed", "status", "end_state", "usage_source"),
    *("prompt_tokens", "cached_tokens", "completion_tokens", "hold", "charge", "first_byte_ms", "duration_ms"),
)


def run(console: Console, *, once: bool, dialect: str = "openai") -> int:
    """Show, then serve until Ctrl-C unless `once`. Return 0 if answer, row and balance agreed, else 1."""
    try:
        return uvloop.run(_demo(console, once=once, dialect=dialect))
    except asyncio.CancelledError:  # SIGTERM in the middle of the showing
        return 1


async def _demo(console: Console, *, once: bool, dialect: str) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that everything is taken down
    async with scene(dialect=dialect) as stage:
        try:
            async with asyncio.timeout(SHOWING_S):
                wrong = await _showing(console, stage)
        except TimeoutError:
            raise Refused(f"the door had not answered after {SHOWING_S:.0f} s") from None
        except aiohttp.ClientError as error:
            raise Refused(f"the door did not answer: {error!r}") from error
        if not once:
            await _serve(console, stage)  # the door goes on meanwhile
    if not once:
        console.print("Goodbye. The demo's ledger is gone.")
    return 1 if wrong else 0


async def _showing(console: Console, stage: Scene) -> list[str]:
    _chapter(console, "The door is open")
    _record(
        console,
        {
            "provider": f"{stage.provider.base_url}  (built in: it has manners, but no model)",
            "dialect": stage.provider.dialect,
            "door": stage.base_url,
            "metrics": f"http://127.0.0.1:{stage.door.admin_port}/metrics",
            "ledger": stage.ledger_path,
            "account": f"{ACCOUNT}, key ending in {stage.key[-4:]}",
        },
    )
    headers = {"Authorization": f"Bearer {stage.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        before = await _balance(session, stage)
        _chapter(console, "One streamed request")
        console.print(Text.assemble(("you        ", "bold"), PROMPT))
        console.print(Text(f"{MODEL}  ", "bold"), end="")
        request_id, text, done = await _ask(
            session, stage, lambda part, style: console.print(Text(part, style), end="", soft_wrap=True)
        )
        console.print()
        after = await _balance(session, stage)
    answer = stage.provider.sent[-1]
    row = _row(stage, request_id)
    _chapter(console, "Its row in the ledger")
    _record(console, {name: "–" if row is None else row[name] for name in _ROW})
    _chapter(console, "What it cost")
    if answer.counts is not None:
        _costs(console, answer.counts)
    _record(console, {"balance before": f"{before} USD", "balance after": f"{after} USD"})
    wrong = disagreements(Seen(answer.texts[0], text, done, answer.counts, row, before, after), PRICES)
    console.print()
    for line in wrong:
        console.print(Text(f"✗ {line}", "bold red"))
    if not wrong:
        console.print(Text("✓ The answer, the row and the balance agree to the last nano-dollar.", "bold green"))
    return wrong


async def _serve(console: Console, stage: Scene) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    _chapter(console, "Your turn")
    for title, snippet in snippets(stage).items():
        console.print(Text(title, "bold"))
        console.print(Text(snippet), soft_wrap=True)
        console.print()
    console.print(Text("Serving until Ctrl-C; the ledger goes away with it.", "dim"))
    await stop.wait()


def snippets(stage: Scene) -> dict[str, str]:
    """Return what somebody may try, ready to be pasted, by title."""
    messages = [{"role": "user", "content": "Hello!"}]
    body = json.dumps({"model": MODEL, "stream": True, "messages": messages})
    query = "SELECT request_id, model, charge, end_state FROM usage"
    return {
        "curl": (
            f"curl -N {stage.base_url}/chat/completions \\\n"
            f"  -H 'Authorization: Bearer {stage.key}' \\\n"
            f"  -H 'Content-Type: application/json' \\\n"
            f"  -d '{body}'"
        ),
        "Python (pip install openai)": (
            "from openai import OpenAI\n\n"
            f'client = OpenAI(base_url="{stage.base_url}", api_key="{stage.key}")\n'
            f'stream = client.chat.completions.create(model="{MODEL}", messages={json.dumps(messages)}, stream=True)\n'
            "for chunk in stream:\n"
            "    for choice in chunk.choices:\n"
            "        if choice.delta:  # MiniMax ends with an event that has none\n"
            '            print(choice.delta.content or "", end="", flush=True)'
        ),
        "A failure of the provider, instead of the message": (
            f"{COMMAND} KIND, {COMMAND} KIND {HIDDEN} (under a 200), or {COMMAND} KIND {LATE} (in a stream's middle)\n"
            f"KIND is one of {', '.join(sorted(KINDS))}"
        ),
        "The ledger": shlex.join(["sqlite3", "-readonly", "-box", str(stage.ledger_path), query]),
        "The command line": shlex.join(["nexus-proxy", "--config", str(stage.config_path), "account", "list"]),
    }


async def _ask(session: aiohttp.ClientSession, stage: Scene, said: Callable[[str, str], None]) -> tuple[str, str, bool]:
    """Send one request and return its id, the text, and whether it ended with [DONE]."""
    messages = [dict(SYSTEM), {"role": "user", "content": PROMPT}]
    body = {"model": MODEL, "messages": messages, "stream": True}
    text, done, thinks = "", False, False
    async with session.post(f"{stage.base_url}/chat/completions", json=body) as response:
        await _must_be_200(response)
        with contextlib.suppress(aiohttp.ClientPayloadError):  # cut: then there was no [DONE]
            async for line in response.content:
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    done = True
                elif line.startswith(b"data:"):
                    for choice in json.loads(data).get("choices") or ():
                        delta = choice.get("delta") or {}
                        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
                        part = delta.get("content") or ""
                        said(thought, "dim")
                        said("\n\n" if part and thinks else "", "")
                        said(part, "")
                        thinks = bool(thought) or (thinks and not part)
                        text += part
        return response.headers["x-request-id"], text, done


async def _balance(session: aiohttp.ClientSession, stage: Scene) -> Decimal:
    async with session.get(f"{stage.base_url}/balance") as response:
        await _must_be_200(response)
        return Decimal(json.loads(await response.text(), parse_float=Decimal)["balance"])


async def _must_be_200(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise Refused(f"{response.url} answered {response.status}: {await response.text()}")


def _row(stage: Scene, request_id: str) -> dict[str, Any] | None:
    """Read the row as an admin would, from outside."""
    with contextlib.closing(readonly.connect(stage.ledger_path)) as database:
        found = database.execute("SELECT * FROM usage WHERE request_id = ?", (request_id,))
        names, row = [column[0] for column in found.description], found.fetchone()
    return None if row is None else dict(zip(names, row, strict=True))


def _chapter(console: Console, title: str) -> None:
    console.print()
    if console.is_terminal:
        console.print(Rule(Text(title, "bold cyan"), align="left", style="cyan"))
    else:
        console.print(f"== {title}")


def _record(console: Console, record: Mapping[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in record.items():
        table.add_row(name.replace("_", " "), Text("–" if value is None else str(value)))
    console.print(table)


def _costs(console: Console, counts: Counts) -> None:
    table = Table("kind of token", box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    for heading in ("tokens", "USD per million", "USD"):
        table.add_column(heading, justify="right")
    found = lines(counts, PRICES)
    for line in found:
        amount = Decimal(line.amount.numerator) / line.amount.denominator  # ends: the denominator is a power of ten
        table.add_row(line.kind, str(line.tokens), line.price, f"{amount:.9f}")
    table.columns[0].footer = "rounded up once, to the nano-dollar"
    table.columns[3].footer = f"{charge(found):.9f}"
    console.print(table)
