"""The verbs that move money and decide who may spend it: account, key, topup."""

from typing import Any

import click

from nexus_proxy.cli.arguments import Amount, Instant, KeyId, Names, json_option
from nexus_proxy.cli.printing import print_json, print_record, print_table
from nexus_proxy.cli.reach import ask
from nexus_proxy.cli.settings import Settings

_ACCOUNT = (
    *("account", "plan", "plan_assigned", "rpm", "suspended", "currency", "balance", "held", "available", "overdraft"),
    *("total_paid", "total_spent", "created_at", "last_updated"),
)
_ACCOUNTS = {
    "account": "account",
    "plan": "plan",
    "suspended": "suspended",
    "balance": "balance",
    "held": "held",
    "available": "available",
    "total_paid": "paid",
    "total_spent": "spent",
    "currency": "",
}
_KEYS = {
    "id": "id",
    "account": "account",
    "name": "name",
    "hint": "ends in",
    "models": "models",
    "rpm": "rpm",
    "created_at": "created",
    "expires_at": "expires",
    "revoked_at": "revoked",
}


_EXPIRES = "When it ends: 2030-12-31 (as that day begins in UTC), 2030-12-31T18:00Z, or 30d from now."


@click.group()
def account() -> None:
    """Who pays: create, change and show accounts."""


@account.command("create")
@click.argument("name")
@click.option("--plan", help="Assign a plan by hand. Without it the account climbs the ladder.")
@click.option("--overdraft", type=Amount(), default="0", help="How far below zero the balance may go.")
@json_option
@click.pass_obj
def account_create(settings: Settings, name: str, plan: str | None, overdraft: str, as_json: bool) -> None:
    """Open the account NAME.

    A name is 1 to 64 of A-Z a-z 0-9 . _ @ -
    """
    without = settings.path is None and settings.config_without_secrets().ledger.path
    made = without if without and not without.exists() else None
    record = ask(settings, "account_create", {"account": name, "plan": plan, "overdraft": overdraft})
    if made is not None:
        click.echo(f"nexus-proxy: note: no configuration file was found; a new ledger was made: {made}", err=True)
    _show_account(record, as_json)


@account.command("set")
@click.argument("name")
@click.option("--plan", help="Assign a plan by hand; '' goes back to the ladder.")
@click.option("--overdraft", type=Amount(), help="How far below zero the balance may go.")
@click.option("--suspend", is_flag=True, help="Refuse its requests.")
@click.option("--resume", is_flag=True, help="Take its requests again.")
@json_option
@click.pass_obj
def account_set(
    settings: Settings, name: str, plan: str | None, overdraft: str | None, suspend: bool, resume: bool, as_json: bool
) -> None:
    """Change the account NAME."""
    if suspend and resume:
        raise click.UsageError("give --suspend or --resume, not both")
    suspended = suspend if suspend or resume else None
    if plan is None and overdraft is None and suspended is None:
        raise click.UsageError("nothing to change: give --plan, --overdraft, --suspend or --resume")
    arguments = {"account": name, "plan": plan, "overdraft": overdraft, "suspended": suspended}
    _show_account(ask(settings, "account_set", arguments), as_json)


@account.command("list")
@json_option
@click.pass_obj
def account_list(settings: Settings, as_json: bool) -> None:
    """Show all accounts."""
    rows = ask(settings, "account_list", {})
    if as_json:
        print_json(rows)
    else:
        print_table(rows, _ACCOUNTS, empty="No accounts yet: nexus-proxy account create NAME")


@account.command("show")
@click.argument("name")
@json_option
@click.pass_obj
def account_show(settings: Settings, name: str, as_json: bool) -> None:
    """Show the account NAME and its keys."""
    record = ask(settings, "account_show", {"account": name})
    _show_account(record, as_json)
    if not as_json:
        click.echo()
        print_table(record["keys"], _KEYS, empty=f"No keys yet: nexus-proxy key create {name}")


@click.group()
def key() -> None:
    """Who may spend: create, list and revoke API keys."""


@key.command("create")
@click.argument("account_name", metavar="ACCOUNT")
@click.option("--name", default="", help="What it is for, to tell keys apart.")
@click.option("--models", type=Names(), help="The only models that it may use; without it, all.")
@click.option("--rpm", type=click.IntRange(1, 1_000_000), help="A limit of its own, beside the account's.")
@click.option("--expires", type=Instant(ahead=True), help=_EXPIRES)
@json_option
@click.pass_obj
def key_create(
    settings: Settings,
    account_name: str,
    name: str,
    models: list[str] | None,
    rpm: int | None,
    expires: str | None,
    as_json: bool,
) -> None:
    """Add a key to ACCOUNT and show it, this once."""
    arguments = {"account": account_name, "name": name, "models": models, "rpm": rpm, "expires": expires}
    record = ask(settings, "key_create", arguments)
    for model in record["unserved_models"]:
        click.echo(f"nexus-proxy: note: the configuration serves no model {model!r} now", err=True)
    if as_json:
        print_json(record)
        return
    print_record(record, ("key", "id", "account", "name", "models", "rpm", "expires_at"))
    click.echo("Keep the key now: only its hash is stored, and it cannot be shown again.", err=True)


@key.command("list")
@click.argument("account_name", metavar="[ACCOUNT]", required=False)
@json_option
@click.pass_obj
def key_list(settings: Settings, account_name: str | None, as_json: bool) -> None:
    """Show the keys of ACCOUNT, or all keys.

    A key itself is not stored: its last four characters tell it.
    """
    rows = ask(settings, "key_list", {"account": account_name})
    if as_json:
        print_json(rows)
    else:
        print_table(rows, _KEYS, empty="No keys yet: nexus-proxy key create ACCOUNT")


@key.command("revoke")
@click.argument("key_id", metavar="ID", type=KeyId())
@json_option
@click.pass_obj
def key_revoke(settings: Settings, key_id: int, as_json: bool) -> None:
    """End the key ID, from its next request on.

    `nexus-proxy key list` shows the ids.
    """
    record = ask(settings, "key_revoke", {"key_id": key_id})
    if as_json:
        print_json(record)
    else:
        print_table([record], _KEYS, empty="")


@click.command()
@click.argument("account_name", metavar="ACCOUNT")
@click.argument("amount", type=Amount(above_zero=True))
@click.option("--external-id", help="The payment's own id: the same id is applied once, however often it is sent.")
@click.option("--note", default="", help="Why, for the ledger.")
@json_option
@click.pass_obj
def topup(
    settings: Settings, account_name: str, amount: str, external_id: str | None, note: str, as_json: bool
) -> None:
    """Pay AMOUNT into ACCOUNT.

    AMOUNT is an exact decimal above 0 in the deployment's currency.
    """
    arguments = {"account": account_name, "amount": amount, "external_id": external_id, "note": note}
    record = ask(settings, "topup", arguments)
    if as_json:
        print_json(record)
        return
    amount = f"{record['amount']} {record['currency']}"
    if record["applied"]:
        click.echo(f"{amount} paid into {account_name}")
    else:
        click.echo(f"{amount} had been paid into {account_name} before, under {external_id!r}; nothing was added")
    print_record(record, ("balance", "held", "available", "plan"))


def _show_account(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
    else:
        print_record(record, _ACCOUNT)
