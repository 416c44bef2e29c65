"""The verbs of whoever runs the place: serve, demo, config check, ledger verify and backup."""

import contextlib
from pathlib import Path

import click

from nexus_proxy.cli.arguments import DialectName, json_option
from nexus_proxy.cli.printing import console, counted, print_json, print_record, print_table
from nexus_proxy.cli.reach import existing_ledger
from nexus_proxy.cli.settings import Settings
from nexus_proxy.config import WrongConfig
from nexus_proxy.errors import LedgerError, Refused
from nexus_proxy.ledger.sqlite.readonly import connect


@click.command()
@click.pass_obj
def serve(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C.

    Streams that are open then may finish.
    """
    from nexus_proxy.server import run  # the other verbs need not wait for the server's modules

    return run(settings.config())


@click.command()
@click.option("--once", is_flag=True, help="End after the showing; exit code 0 only if everything agrees.")
@click.option(
    "--dialect",
    type=DialectName(),
    default="openai",
    help="Whose wire the provider speaks: a dialect, or a provider that `nexus-proxy providers` lists. [openai]",
)
def demo(once: bool, dialect: str) -> int:
    """See it work, with a built-in provider.

    The door before it, one streamed request, and what it cost. While it serves, a message such as
    "/fail no_money" gets what the dialect's provider says then, instead of an answer.
    """
    from nexus_proxy.demo.show import run

    return run(console(), once=once, dialect=dialect)


@click.group()
def config() -> None:
    """The configuration."""


@config.command("check")
@json_option
@click.pass_obj
def config_check(settings: Settings, as_json: bool) -> int:
    """Name every mistake in the configuration.

    It is read as `serve` would, secrets included.
    """
    try:
        found = settings.config()
    except WrongConfig as error:
        if not as_json:
            raise
        print_json({"errors": [{"path": path, "message": what} for path, what in error.mistakes]})
        return 1
    record = {
        "file": None if settings.path is None else str(settings.path),
        "listen": f"{found.server.listen.host}:{found.server.listen.port}",
        "admin_listen": f"{found.server.admin_listen.host}:{found.server.admin_listen.port}",
        "ledger": str(found.ledger.path),
        "currency": found.currency,
        "plans": sorted(found.plans),
        "providers": sorted(found.providers),
        "models": sorted(found.models),
    }
    if as_json:
        print_json(record)
    else:
        print_record(record, list(record))
        nowhere = "No configuration file was found: these are the defaults, and they serve nothing."
        click.echo("The configuration is good." if settings.path is not None else nowhere)
    return 0


@click.group()
def ledger() -> None:
    """The ledger's file."""


@ledger.command("verify")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
@click.pass_obj
def ledger_verify(settings: Settings, file: Path | None, as_json: bool) -> int:
    """Prove the ledger, or a backup FILE.

    Hash chain, sums, balances, holds, roll-ups, and every charge computed again.
    """
    from nexus_proxy.ledger.sqlite.verify import verify

    path = existing_ledger(settings) if file is None else _existing(file)
    with console().status(f"Verifying {path}…"):
        findings = verify(path)
    rows = [{"check": finding.check, "detail": finding.detail} for finding in findings]
    checked = {} if rows else _counts(path)  # what is broken may not even be countable
    if as_json:
        print_json({"file": str(path), "clean": not rows, **checked, "findings": rows})
    else:
        size = ", ".join(counted(checked.get(many, 0), one, many) for one, many in _COUNTED.items())
        print_table(rows, {"check": "check", "detail": "found"}, empty=f"{path}: everything agrees ({size}).")
    return 1 if rows else 0


@ledger.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def ledger_backup(settings: Settings, target: Path, as_json: bool) -> None:
    """Write one consistent copy to TARGET, while serving or not."""
    from nexus_proxy.ledger.sqlite.backup import backup

    path = existing_ledger(settings)
    if target.exists():
        raise Refused(f"{target} is there already")
    backup(path, target)
    record = {"file": str(path), "backup": str(target), "bytes": target.stat().st_size}
    if as_json:
        print_json(record)
    else:
        click.echo(f"{target}: {counted(target.stat().st_size, 'byte')}")


_COUNTED = {"entry": "entries", "request": "requests"}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}")
    return path


def _counts(path: Path) -> dict[str, int]:
    with contextlib.closing(connect(path)) as database:
        query = "SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM requests)"
        entries, requests = database.execute(query).fetchone()
    return {"entries": entries, "requests": requests}
