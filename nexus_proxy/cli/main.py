"""The verbs of `nexus-proxy`, gathered, and what each way to end says to the shell.

Strategy: a verb does its work or raises; here alone an exception becomes a line on stderr and an exit code:
0 done, 1 refused or found wrong, 2 wrong usage, 3 the server or the ledger cannot be reached, 130 interrupted.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from nexus_proxy.cli.accounts import account, key, topup
from nexus_proxy.cli.operate import config, demo, ledger, serve
from nexus_proxy.cli.providers import providers
from nexus_proxy.cli.quote import quote
from nexus_proxy.cli.reports import models, usage
from nexus_proxy.cli.settings import Settings
from nexus_proxy.errors import ConfigError, LedgerError, LedgerUnavailable, Refused
from nexus_proxy.ledger.protocol import StoreBroken, StoreBusy
from nexus_proxy.ledger.sqlite.readonly import UnreadableError

_UNREACHABLE = (LedgerError, LedgerUnavailable, StoreBusy, StoreBroken, UnreadableError, OSError)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="NEXUS_CONFIG",
    metavar="FILE",
    help="The configuration. Without it: $NEXUS_CONFIG, else ./config/nexus.toml, else ./nexus.toml, else defaults.",
)
@click.version_option(package_name="nexus-proxy")
@click.pass_context
def cli(context: click.Context, config_path: Path | None) -> None:
    """A metered, OpenAI-compatible front door for Chinese AI models.

    Verbs work the same whether the server runs or not, and take effect on the very next request.

    Exit code: 0 done, 1 refused or found wrong, 2 wrong usage, 3 the server or the ledger cannot be reached.
    """
    by_variable = context.get_parameter_source("config_path") is ParameterSource.ENVIRONMENT
    context.obj = Settings.found(config_path, "NEXUS_CONFIG" if by_variable else "--config")


for command in (serve, demo, account, key, topup, usage, models, quote, providers, config, ledger):
    cli.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one verb and return the exit code. What the world does wrong is a line on stderr, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a poor terminal gets question marks, never a traceback
    try:
        code = cli.main(args=list(arguments), prog_name="nexus-proxy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except (Refused, ConfigError) as error:
        return _say(error, 1)
    except _UNREACHABLE as error:
        return _say(error, 3)
    return code if isinstance(code, int) else 0


def _say(error: Exception, code: int) -> int:
    click.echo(f"nexus-proxy: {str(error) or type(error).__name__}", err=True)
    return code
