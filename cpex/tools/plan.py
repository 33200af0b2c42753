"""The command `cpex plan`: what runs when, and what each plugin may do.

What is shown is what the engine compiles, from plugins that are constructed and not initialised; `--no-import` compiles
from the configuration alone. `planning.py` decides, this module draws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from cpex.tools.console import clean_end, complain, console_for, plain, plugins_print_to_stderr, print_json
from cpex.tools.exit_codes import ExitCode

if TYPE_CHECKING:
    # Imported when a plan is made, so that help and version cost little.
    from rich.console import Console
    from rich.table import Table

    from cpex.tools.planning import Plan, PlannedHook

__all__ = ["flow_chart", "plan"]


def plan(
    config: Annotated[str, typer.Argument(metavar="FILE", help="Configuration of the pipeline.")],
    hook: Annotated[str | None, typer.Option("--hook", metavar="HOOK", help="Show this hook only.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Draw a Mermaid flow chart.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON document.")] = False,
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Do not import plugins; compile from the file alone.")
    ] = False,
) -> None:
    """Show the compiled order of each hook, and what each plugin may do there.

    Phases run in the order sequential, transform, audit, concurrent,
    fire_and_forget; inside a phase a lower priority comes first. Plugins
    are constructed, not initialised.

    Exits with 0, or with 1 when the configuration has faults.

    Example: cpex plan plugins.yaml --hook tool_pre_invoke
    """
    from cpex.framework.errors import ConfigError
    from cpex.tools.logs import logs_to_stderr
    from cpex.tools.planning import load_plan

    if mermaid and as_json:
        raise typer.BadParameter("`--mermaid` and `--json` are two forms of one answer; choose one")
    with clean_end():
        try:
            with plugins_print_to_stderr(), logs_to_stderr():
                planned = load_plan(config, imports=not no_import)
        except ConfigError as error:
            for fault in error.faults:
                complain(fault)
            raise typer.Exit(ExitCode.FAILURE) from error
        _print(planned if hook is None else _only(planned, hook), mermaid=mermaid, as_json=as_json)


def _only(planned: Plan, name: str) -> Plan:
    """The plan of one hook, which may have no plugin."""
    from cpex.framework.hooks.registry import get_hook_registry
    from cpex.framework.loader.suggest import did_you_mean, shown
    from cpex.tools.planning import PlannedHook

    chosen = tuple(each for each in planned.hooks if each.hook == name)
    registered = get_hook_registry().get_registered_hooks()
    if not chosen and name not in registered:
        known = sorted({*(each.hook for each in planned.hooks), *registered})
        raise typer.BadParameter(f"unknown hook {shown(name)}; {did_you_mean(name, known)}")
    return replace(planned, hooks=chosen or (PlannedHook(name, None, ()),))


def _print(planned: Plan, *, mermaid: bool, as_json: bool) -> None:
    if as_json:
        print_json({"v": 1, **asdict(planned)}, sys.stdout)
    elif mermaid:
        sys.stdout.write(flow_chart(planned.hooks))
    else:
        _print_tables(planned, console_for(sys.stdout))


def _print_tables(planned: Plan, console: Console) -> None:
    for number, hook in enumerate(planned.hooks):
        if number:
            console.print()
        console.print(plain(hook.hook), f"  {hook.payload or 'no payload class'}" if hook.steps else "", sep="")
        console.print(_table(hook) if hook.steps else "  no plugin runs here")
    notes = [("disabled", planned.disabled), ("list no hooks", planned.hooks_unknown)]
    if planned.hook_timeout_s is not None:
        notes.append(("a whole call may take", (f"{planned.hook_timeout_s:g} s",)))
    if any(names for _, names in notes):
        console.print()
    for title, names in notes:
        if names:
            console.print(f"{title}: ", plain(", ".join(names), limit=400), sep="")


def _table(hook: PlannedHook) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("#", "phase", "prio", "plugin", "may", "when", "timeout", "on error", "capabilities"):
        table.add_column(name, overflow="fold", justify="right" if name in ("#", "prio", "timeout") else "left")
    for number, step in enumerate(hook.steps, 1):
        table.add_row(
            str(number),
            step.mode,
            str(step.priority),
            plain(step.plugin),
            ", ".join(step.may),
            plain(" or ".join(step.conditions) or "always", limit=400),
            "none" if step.timeout_s is None else f"{step.timeout_s:g} s",
            step.on_error,
            ", ".join(step.capabilities) or "-",
        )
    return table


def flow_chart(hooks: Iterable[PlannedHook]) -> str:
    """The plan as a Mermaid flow chart: one lane per hook, solid arrows where the caller waits."""
    lines = ["flowchart LR"]
    for number, hook in enumerate(hooks):
        lines += [f"  subgraph h{number}[{_label(hook.hook)}]", *_lane(f"h{number}", hook), "  end"]
    return "\n".join(lines) + "\n"


def _lane(prefix: str, hook: PlannedHook) -> list[str]:
    lines = [f"    {prefix}_call([call])", f"    {prefix}_end([decision])"]
    ids = {step: f"{prefix}_{number}" for number, step in enumerate(hook.steps, 1)}
    for step, node in ids.items():
        lines.append(f"    {node}[{_label(step.plugin, f'{step.mode} {step.priority}', ' / '.join(step.may))}]")
    last = [f"{prefix}_call"]
    serial = [step for step in hook.steps if step.mode in ("sequential", "transform", "audit")]
    for step in serial:
        lines += [f"    {each} --> {ids[step]}" for each in last]
        last = [ids[step]]
    side_by_side = [ids[step] for step in hook.steps if step.mode == "concurrent"]
    lines += [f"    {each} --> {node}" for node in side_by_side for each in last]
    lines += [f"    {each} --> {prefix}_end" for each in side_by_side or last]
    lines += [f"    {ids[step]} -. deny .-> {prefix}_end" for step in hook.steps if "block" in step.may]
    lines += [f"    {prefix}_end -.-> {ids[step]}" for step in hook.steps if step.mode == "fire_and_forget"]
    return lines


def _label(*lines: str) -> str:
    # Mermaid: quoted labels take entity codes in place of characters that would end them.
    escaped = (plain(line).plain.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;") for line in lines)
    return '"' + "<br/>".join(escaped) + '"'
