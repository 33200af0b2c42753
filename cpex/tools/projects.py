"""The commands `cpex init` and `cpex bootstrap`: new projects."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cpex.tools.console import clean_end, complain
from cpex.tools.exit_codes import ExitCode
from cpex.tools.templates import (
    STARTER,
    ProjectValues,
    TemplateError,
    class_name_of,
    package_of,
    render,
    slug_of,
    template_types,
)

__all__ = ["bootstrap", "git_config", "init"]

_UNKNOWN = "<changeme>"
_GIT_TIMEOUT_S = 10


def init(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where to write it; . is the current folder.")],
) -> None:
    """Write a project to start from: a pipeline, a plugin, a test, a Makefile.

    Files that are there already are not touched.

    Example: cpex init guards && make -C guards test
    """
    with clean_end():
        target = Path(directory)
        name = target.resolve().name or STARTER
        try:
            files = render(STARTER, target, _values(name, name, "A pipeline of cpex."))
        except TemplateError as error:
            _fail("init-failed", f"no project was made: {error}", "give a folder that is new, or has no such files")
        typer.echo(f"wrote {target}: {', '.join(str(file) for file in files)}")
        typer.echo(f"next: cd {target} && make test")


def bootstrap(
    destination: Annotated[
        str | None,
        typer.Option("--destination", "-d", metavar="DIR", help="The new folder, named like the plugin."),
    ] = None,
    template_url: Annotated[
        str | None,
        typer.Option("--template_url", "-u", metavar="URL", help="A Git repository with templates, in place of ours."),
    ] = None,
    template_type: Annotated[
        str, typer.Option("--template_type", "-t", metavar="TYPE", help="native, external or isolated.")
    ] = "native",
    vcs_ref: Annotated[
        str, typer.Option("--vcs_ref", "-r", metavar="REF", help="Branch, tag or commit of the repository.")
    ] = "main",
    no_input: Annotated[bool, typer.Option("--no_input", help="Ask nothing; take defaults.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Tell what would be made, and make nothing.")] = False,
) -> None:
    """Write the project of a new plugin.

    native runs in the host's process, isolated in a virtual environment
    of its own, external as a server in another process.

    Example: cpex bootstrap -d my_filter -t native --no_input
    """
    with clean_end():
        if template_url is None and template_type not in template_types():
            known = ", ".join(template_types())
            raise typer.BadParameter(f"unknown type `{template_type}`; known: {known}", param_hint="--template_type")
        if not no_input and not dry_run and not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; add --no_input", param_hint="--no_input")
        name = _destination(destination, ask=not (no_input or dry_run))
        if dry_run:
            source = f"{template_url} at {vcs_ref}" if template_url else "the packaged templates"
            typer.echo(f"would write {name}: template {template_type} of {source}")
            return
        if template_url is not None:
            _bootstrap_remote(template_url, template_type, vcs_ref, name, no_input)
        else:
            _bootstrap_packaged(template_type, name, ask=not no_input)


def _destination(given: str | None, *, ask: bool) -> Path:
    """The folder to write; `.` names no project, so its own name is asked for, else taken from a default."""
    if given is not None and Path(given).name:
        return Path(given)
    folder = Path(given or ".")
    return folder / (slug_of(typer.prompt("plugin_name", default="MyFilter")) if ask else "my_filter")


def _bootstrap_packaged(template: str, destination: Path, *, ask: bool) -> None:
    try:
        slug = package_of(destination.name)
        # A package of the project's name holds `native` and `isolated` plugins; it must be one that can be imported.
        target = destination if template == "external" else destination.with_name(slug)
        values = _values(slug, class_name_of(slug), "A plugin of cpex.")
        if ask:
            values = _asked(values)
        if target.exists():
            raise TemplateError(f"`{target}` is there already")
        render(template, target, values)
    except TemplateError as error:
        _fail("bootstrap-failed", f"Failed to create plugin project: {error}", "give a folder that does not exist")
    typer.echo(f"wrote {target}")


def _bootstrap_remote(url: str, template: str, ref: str, destination: Path, no_input: bool) -> None:
    if shutil.which("git") is None:
        _fail("git-missing", "--template_url needs `git`, which is not installed", "install git", ExitCode.FAILURE)
    try:
        from cookiecutter.main import cookiecutter
    except ModuleNotFoundError:
        _fail(
            "cookiecutter-missing",
            "--template_url needs `cookiecutter`, which is not installed",
            "pip install 'cpex[templates]'",
            ExitCode.FAILURE,
        )
    # It logs what it raises, with a traceback; the one message is ours.
    logging.getLogger("cookiecutter").disabled = True
    logging.getLogger("cookiecutter.vcs").disabled = True
    context = {"plugin_slug": destination.name, "author": git_config("user.name"), "email": git_config("user.email")}
    # Cookiecutter guesses from the address what kind of repository it is, and gives up where nothing says `git`.
    address = f"git+{url}" if "://" in url and "git" not in url else url
    try:
        made = cookiecutter(
            address,
            checkout=ref,
            directory=f"cpex/templates/{template}",
            no_input=no_input,
            extra_context=context,
            output_dir=str(destination.parent),
        )
    # Cookiecutter raises what git, its templates and their hooks raise.
    except Exception as error:
        _fail(
            "bootstrap-failed",
            f"Failed to create plugin project: {str(error) or type(error).__name__}",
            f"see whether {url} has cpex/templates/{template} at {ref}",
        )
    typer.echo(f"wrote {made}")


def _values(slug: str, name: str, description: str) -> ProjectValues:
    return ProjectValues(slug, name, git_config("user.name"), git_config("user.email"), description)


def _asked(values: ProjectValues) -> ProjectValues:
    return ProjectValues(
        values.plugin_slug,
        plugin_name=typer.prompt("plugin_name", default=values.plugin_name),
        version=typer.prompt("version", default=values.version),
        author=typer.prompt("author", default=values.author),
        email=typer.prompt("email", default=values.email),
        description=typer.prompt("description", default=values.description),
    )


def git_config(key: str) -> str:
    """What Git knows of the user, or a word to be replaced."""
    try:
        done = subprocess.run(
            ["git", "config", key], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN
    return done.stdout.strip() or _UNKNOWN


def _fail(code: str, message: str, help: str, exit_code: ExitCode = ExitCode.OPERATION) -> NoReturn:
    from cpex.framework.errors import Fault

    complain(Fault(code=code, message=message, help=help))
    raise typer.Exit(exit_code)
