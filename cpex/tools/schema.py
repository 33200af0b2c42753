"""The command `cpex schema`: the JSON Schema of configuration files, for editors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cpex.tools.console import STANDARD, clean_end, complain, print_json
from cpex.tools.exit_codes import ExitCode

__all__ = ["HEADER", "schema"]

HEADER = "# yaml-language-server: $schema="
"""The line, followed by a path or URL, by which editors find the schema of a YAML file."""


def schema(
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="Write it there; - prints it.")] = STANDARD,
    installed: Annotated[
        bool, typer.Option("--installed", help="Know the plugins of other installed packages too, importing them.")
    ] = False,
) -> None:
    """Print the JSON Schema of configuration files.

    With it, editors complete keys and words and underline what is wrong.
    Begin a configuration with the line

    # yaml-language-server: $schema=cpex.schema.json

    Example: cpex schema --out cpex.schema.json
    """
    from cpex.framework.errors import Fault
    from cpex.framework.loader.json_schema import config_schema
    from cpex.framework.loader.kinds import PluginKindError

    with clean_end():
        try:
            made = config_schema(installed=installed)
            if out == STANDARD:
                print_json(made, sys.stdout)
                return
            with Path(out).open("w", encoding="utf-8") as file:
                print_json(made, file)
        except PluginKindError as error:
            help = "mend or remove the package, or leave out `--installed`"
            complain(Fault(code="schema-kind", message=str(error), help=help))
            raise typer.Exit(ExitCode.FAILURE) from None
        except OSError as error:
            complain(
                Fault(
                    code="schema-unwritable",
                    message=f"the schema cannot be written to `{out}`: {error.strerror}",
                    help="give a file in a folder that exists and that you may write to",
                )
            )
            raise typer.Exit(ExitCode.FAILURE) from None
