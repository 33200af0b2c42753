"""The program `cpex`: parses the command line, dispatches, exits."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from cpex.framework.settings import PluginsCliSettings, get_cli_settings
from cpex.tools.audit import audit
from cpex.tools.check import check
from cpex.tools.console import complain, environment_faults
from cpex.tools.exit_codes import ExitCode
from cpex.tools.plan import plan
from cpex.tools.plugins import plugin
from cpex.tools.projects import bootstrap, init
from cpex.tools.proxy import proxy
from cpex.tools.run.command import run
from cpex.tools.schema import schema
from cpex.tools.serve import serve

__all__ = ["app", "main"]


def _told(error: ValidationError) -> bool:
    """Whether variables of the environment are to blame, and were named."""
    faults = environment_faults(error)
    for fault in faults:
        complain(fault)
    return bool(faults)


def _settings_of_this_program() -> PluginsCliSettings:
    try:
        return get_cli_settings()
    except ValidationError as error:
        if not _told(error):
            raise
        sys.exit(ExitCode.USAGE)


_settings = _settings_of_this_program()
_markup = _settings.cli_markup_mode or "rich"

app = typer.Typer(
    name="cpex",
    help="Decide, in the path of every operation an AI agent performs, what may happen.",
    no_args_is_help=True,
    add_completion=_settings.cli_completion,
    rich_markup_mode=None if _markup == "disabled" else _markup,
    # A traceback that shows local variables would show payloads.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cpex {version('cpex')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(run)
app.command()(check)
app.command()(plan)
app.command()(serve)
app.command()(proxy)
app.add_typer(audit)
app.command()(schema)
app.command()(init)
app.command()(bootstrap)
app.command()(plugin)


def main() -> None:
    """Run the command line of this process."""
    try:
        app(prog_name="cpex")
    except ValidationError as error:
        if not _told(error):
            raise
        sys.exit(ExitCode.USAGE)


if __name__ == "__main__":
    main()
