"""The verbs of whoever runs the place: serve, demo, config check, ledger verify and backup."""

from pathlib import Path

import click

from nexus_proxy.cli.arguments import json_option
from nexus_proxy.cli.printing import console, print_json, print_record, print_table
from nexus_proxy.cli.settings import Settings
from nexus_proxy.errors import LedgerError, Refused


@click.command()
@click.pass_obj
def serve(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; streams that are open then may finish."""
    from nexus_proxy.app import run  # the other verbs need not wait for the server's modules

    return run(settings.config())


@click.command()
@click.option("--once", is_flag=True, help="End after the showing; exit code 0 only if everything agrees.")
def demo(once: bool) -> int:
    """See it work: a built-in provider, the door before it, one streamed request, what it cost."""
    from nexus_proxy.demo.show import run

    return run(console(), once=once)


@click.group()
def config() -> None:
    """The configuration."""


@config.command("check")
@json_option
@click.pass_obj
def config_check(settings: Settings, as_json: bool) -> None:
    """Read everything as `serve` would, secrets included, and name every mistake."""
    found = settings.config()
    record = {
        "file": None if settings.path is None else str(settings.path),
        "listen": f"{found.server.listen.host}:{found.server.listen.port}",
        "admin_listen": f"{found.server.admin_listen.host}:{found.server.admin_listen.port}",
        "ledger": str(found.ledger_path),
        "currency": found.currency,
        "plans": sorted(found.plans),
        "providers": sorted(found.providers),
        "models": sorted(found.models),
    }
    if as_json:
        print_json(record)
    else:
        print_record(record, list(record))
        click.echo("The configuration is good.")


@click.group()
def ledger() -> None:
    """The ledger's file."""


@ledger.command("verify")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
@click.pass_obj
def ledger_verify(settings: Settings, file: Path | None, as_json: bool) -> int:
    """Prove the ledger, or a backup FILE: hash chain, sums, balances, holds, roll-ups, every charge."""
    from nexus_proxy.ledger.verify import verify

    path = _existing(file or settings.config_without_secrets().ledger_path)
    with console().status(f"Verifying {path}…"):
        findings = verify(path)
    rows = [{"check": finding.check, "detail": finding.detail} for finding in findings]
    if as_json:
        print_json({"file": str(path), "clean": not rows, "findings": rows})
    else:
        print_table(rows, {"check": "check", "detail": "found"}, empty=f"{path}: everything agrees.")
    return 1 if rows else 0


@ledger.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def ledger_backup(settings: Settings, target: Path, as_json: bool) -> None:
    """Write one consistent copy to TARGET, while serving or not."""
    from nexus_proxy.ledger.backup import backup

    path = _existing(settings.config_without_secrets().ledger_path)
    if target.exists():
        raise Refused(f"{target} is there already")
    backup(path, target)
    record = {"file": str(path), "backup": str(target), "bytes": target.stat().st_size}
    if as_json:
        print_json(record)
    else:
        click.echo(f"{target}: {record['bytes']} bytes")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise LedgerError(f"no ledger at {path}")
    return path
