"""Which module may import which, what importing the package costs, and that every public name is where it is said."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cpex.framework

PACKAGE = Path(cpex.framework.__file__).parents[1]
GROUPS = (
    "models errors extensions cmf observability logs secrets clock constants protocols validators",
    "base decorator hooks utils conditions responses",
    "memory registry pipeline",
    "pdp",
    "policy loader",
    "external isolated",
    "manager guard",
    "builtins proxy testing adapters",
    "tools",
)
RANKS = {part: rank for rank, group in enumerate(GROUPS, start=1) for part in group.split()}
LIGHT = 3
"""Up to this rank, modules import the standard library and pydantic only."""
TRANSPORTS = {"external", "isolated"}
EXTERNAL_TRANSPORTS = {"mcp", "grpc", "unix"}
"""Folders of the external ones; what lies beside them, the messages included, is shared."""
LIGHT_PACKAGES = {"pydantic", "pydantic_core", "typing_extensions", "cpex"}
FOR_WEB_SERVERS = {"cpex.framework.responses"}
"""Modules that are of use only beside a web framework, and imported by nothing of ours when it is imported itself."""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and syntax tree of every module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(modules())


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: its second name inside the framework, its first outside."""
    parts = module.split(".")[1:]
    if parts[:1] == ["framework"]:
        parts = parts[1:]
    return parts[0] if parts else ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "modules are imported by their full names"
            for name in node.names:
                dotted = f"{node.module}.{name.name}"
                yield node.lineno, dotted if dotted in MODULES else str(node.module)


def at_import_time(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, functions and type-checking blocks left out."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo.extend(node.orelse)
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            todo.extend(getattr(node, field, []))
        todo.extend(statement for handler in getattr(node, "handlers", []) for statement in handler.body)


def test_every_module_is_in_a_part_that_has_a_rank() -> None:
    # The package itself and the settings stand outside: the first names everything, the second nothing of ours.
    assert {part_of(module) for module in MODULES} - set(RANKS) <= {"", "settings"}


def test_imports_run_from_low_to_high() -> None:
    upward = [
        f"{module}:{line} imports {imported}"
        for module, tree in MODULES.items()
        for line, imported in imports(tree)
        if imported.startswith("cpex.") and RANKS.get(part_of(imported), 0) > RANKS.get(part_of(module), len(GROUPS))
    ]
    assert upward == []


def test_settings_import_nothing_of_ours_and_only_those_who_compose_call_them() -> None:
    assert [name for _, name in imports(MODULES["cpex.framework.settings"]) if name.startswith("cpex")] == []
    readers = {
        part_of(module)
        for module, tree in MODULES.items()
        for _, name in imports(tree)
        if name == "cpex.framework.settings"
    }
    assert not readers & {part for part, rank in RANKS.items() if rank in (2, 3)}


def transport_of(module: str) -> str | None:
    """The transport that a module belongs to; `None` for others, and for what transports share."""
    parts = module.split(".")
    if part_of(module) == "external":
        return parts[3] if len(parts) > 3 and parts[3] in EXTERNAL_TRANSPORTS else None
    return "isolated" if part_of(module) == "isolated" else None


def test_transports_do_not_import_one_another() -> None:
    crossing = [
        f"{module} imports {name}"
        for module, tree in MODULES.items()
        for _, name in imports(tree)
        if None not in (transport_of(module), transport_of(name)) and transport_of(module) != transport_of(name)
    ]
    assert crossing == []


def test_modules_of_the_engine_import_only_the_standard_library_and_pydantic() -> None:
    heavy = [
        f"{module} imports {name}"
        for module, tree in MODULES.items()
        if 0 < RANKS.get(part_of(module), 0) <= LIGHT and module not in FOR_WEB_SERVERS
        for statement in at_import_time(tree)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for _, name in imports(statement)
        if name.partition(".")[0] not in LIGHT_PACKAGES | sys.stdlib_module_names
    ]
    assert heavy == []


def test_the_modules_of_the_engine_import_in_the_order_in_which_its_docstring_lists_them() -> None:
    engine = "cpex.framework.pipeline"
    listed = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^- (.*):", ast.get_docstring(MODULES[engine]) or "", re.MULTILINE))
    )
    inside = {name.removeprefix(f"{engine}."): tree for name, tree in MODULES.items() if name.startswith(f"{engine}.")}
    assert sorted(listed) == sorted(inside)
    forward = [
        f"{module} imports {imported}"
        for module, tree in inside.items()
        for _, imported in imports(tree)
        if imported.startswith(f"{engine}.")
        and listed.index(imported.removeprefix(f"{engine}.")) > listed.index(module)
    ]
    assert forward == []


def in_a_fresh_interpreter(code: str) -> Any:
    """What a program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def packages_after(statement: str) -> set[str]:
    """Top-level packages outside of the standard library that a fresh interpreter has loaded after a statement."""
    code = (
        "import json, sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(loaded - set(sys.stdlib_module_names))))"
    )
    # The standard library's table of build settings has a name that depends on the machine.
    return {name for name in in_a_fresh_interpreter(code) if not name.startswith("_sysconfigdata")}


PYDANTIC = {"pydantic", "pydantic_core", "typing_extensions", "annotated_types", "typing_inspection"}


@pytest.mark.parametrize(
    "statement",
    ["import cpex.framework", "import cpex.framework.models", "from cpex.framework import Plugin, PluginResult, hook"],
)
def test_importing_the_framework_loads_the_standard_library_and_pydantic_only(statement: str) -> None:
    assert packages_after(statement) <= PYDANTIC | {"cpex"}


def test_even_all_names_of_the_framework_load_nothing_else() -> None:
    assert packages_after("from cpex.framework import *") <= PYDANTIC | {"cpex"}


FORKING = """
import asyncio, importlib, json, logging, os, sys
# Loaded once for all: it loads its own parts when they are first asked for.
from pydantic import BaseModel, SecretStr, TypeAdapter, create_model
create_model("Any", x=(int, 1))
failed = []
for module in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            os._exit(0 if not str(error.name).startswith("cpex") else 1)
        except BaseException as error:
            print(module, repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(module)
print(json.dumps(failed))
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="starting an interpreter for each module takes too long")
def test_every_module_of_the_framework_can_be_imported_first() -> None:
    # A module that needs a package of an extra is let off where that is not installed.
    names = [name for name in MODULES if name.startswith("cpex.framework") and name not in FOR_WEB_SERVERS]
    names = [name for name in names if not name.endswith("__main__")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert (json.loads(done.stdout), done.stderr) == ([], "")


PROMISED = """
Plugin hook PluginManager TenantPluginManager get_plugin_manager PluginLoader ConfigLoader get_attr
PluginConfig PluginMode OnError PluginCondition MCPClientConfig MCPServerConfig TransportType
GlobalContext PluginContext PluginContextTable UserContext
PluginPayload PluginResult PluginViolation PluginErrorModel PluginError PluginViolationError
ControlExecutionRecord ControlExecutionStatus DenialExecutionRecord DenialOutcome
HookRegistry get_hook_registry ObservabilityProvider ExternalPluginServer
ToolHookType ToolPreInvokePayload ToolPreInvokeResult ToolPostInvokePayload ToolPostInvokeResult
PromptHookType PromptPrehookPayload PromptPrehookResult PromptPosthookPayload PromptPosthookResult
ResourceHookType ResourcePreFetchPayload ResourcePreFetchResult ResourcePostFetchPayload ResourcePostFetchResult
AgentHookType AgentPreInvokePayload AgentPreInvokeResult AgentPostInvokePayload AgentPostInvokeResult
HttpHookType HttpHeaderPayload HttpPreRequestPayload HttpPreRequestResult HttpPostRequestPayload HttpPostRequestResult
HttpAuthResolveUserPayload HttpAuthResolveUserResult
HttpAuthCheckPermissionPayload HttpAuthCheckPermissionResult HttpAuthCheckPermissionResultPayload
"""
"""What `from cpex.framework import *` binds, as in release 0.1: a star must not bring names that a host has itself."""

BESIDE = """
HookPayloadPolicy HookOutcome ListHookType ToolListPayload ToolListResult PromptListPayload PromptListResult
ResourceListPayload ResourceListResult IdentityHookType IdentityPayload IdentityResult IdentityResolveResult
AttenuationConfig DelegationPayload DelegationResult TokenDelegateResult MessageHookType CmfHookType MessagePayload
MessageResult
"""
"""Names that are importable from there all the same."""


def test_all_public_names_of_the_package_load_and_nothing_else_is_promised() -> None:
    assert sorted(cpex.framework.__all__) == sorted(PROMISED.split())
    for name in BESIDE.split():
        assert getattr(cpex.framework, name) is not None
        assert name in dir(cpex.framework)
    for name in cpex.framework.__all__:
        assert getattr(cpex.framework, name) is not None
    assert set(cpex.framework.__all__) <= set(dir(cpex.framework))
    scope: dict[str, Any] = {}
    exec("from cpex.framework import *", scope)
    assert set(cpex.framework.__all__) <= set(scope)
    with pytest.raises(AttributeError):
        cpex.framework.no_such_name
    with pytest.raises(ImportError):
        exec("from cpex.framework import no_such_name", {})


SUBMODULES = (
    *("models", "errors", "base", "decorator", "registry", "manager", "memory", "settings", "constants", "utils"),
    *("observability", "protocols", "validators", "extensions", "hooks", "loader"),
)


def test_submodules_are_reachable_as_attributes() -> None:
    code = "import cpex.framework as framework, json\n"
    code += f"print(json.dumps([getattr(framework, name).__name__ for name in {SUBMODULES}]))"
    assert in_a_fresh_interpreter(code) == [f"cpex.framework.{name}" for name in SUBMODULES]


def promised_by(tree: ast.Module) -> list[str]:
    """The names in a module's `__all__`, where it is written out."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value)) if isinstance(node.value, ast.List) else []
    return []


def test_every_name_that_a_module_promises_is_there() -> None:
    missing = [
        f"{module}.{name}"
        for module, tree in MODULES.items()
        if module.startswith("cpex.framework") and module not in FOR_WEB_SERVERS and (names := promised_by(tree))
        for loaded in [importlib.import_module(module)]
        for name in names
        if not hasattr(loaded, name)
    ]
    assert missing == []
