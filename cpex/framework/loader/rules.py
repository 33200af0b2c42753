"""Rules that no single field can hold: between plugins, between the fields of one, between a condition and its hooks.

They are judged on the document, not on the validated configuration, so that they speak up beside all other faults and
know what was written and what is a default.
"""

from __future__ import annotations

from collections.abc import Hashable

from cpex.framework.base import hook_name
from cpex.framework.conditions import entity_fields
from cpex.framework.extensions.tiers import Capability
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.faults import Findings, Path
from cpex.framework.loader.source_map import Node
from cpex.framework.loader.suggest import did_you_mean, join_names, shown
from cpex.framework.models.config import EXTRA_CAPABILITIES

__all__ = ["IGNORED_KEYS", "report_broken_rules"]

IGNORED_KEYS = frozenset({"plugin_settings"})
"""Keys of the top level that old files carry and nothing reads."""

_ENTITIES = ("tools", "prompts", "resources", "agents")
"""Fields of a condition that are about what the hook is about."""

_TELL_THEIR_HOOKS = frozenset({"external", "isolated_venv"})
"""Kinds whose plugins may name their hooks themselves, once they are connected."""


def report_broken_rules(root: Node, findings: Findings) -> None:
    """Report what is wrong between the parts of a document."""
    for key in IGNORED_KEYS & set(root.keys or ()):
        findings.warn(
            "config-ignored-key",
            f"`{key}` has no effect",
            _key(root, key).place,
            (key,),
            "remove it; see `plugin_timeout_s`, `hook_timeout_s` and the `on_error` of each plugin",
        )
    plugins = _child(root, "plugins")
    entries = list(enumerate(plugins.items or ())) if plugins is not None else []
    _report_repeated_names(entries, findings)
    for index, plugin in entries:
        if plugin.keys is not None:
            _report_plugin(plugin, ("plugins", index), findings)


def _report_repeated_names(entries: list[tuple[int, Node]], findings: Findings) -> None:
    first: dict[str, Node] = {}
    for index, plugin in entries:
        name = _child(plugin, "name")
        if name is None or not isinstance(name.value, str) or name.failed:
            continue
        if not name.value.strip():
            message = "the name of a plugin must not be blank"
            findings.fault("config-invalid-value", message, name.place, ("plugins", index, "name"), "give it one")
        elif name.value in first:
            findings.fault(
                "config-duplicate-plugin",
                f"plugin {shown(name.source)} is defined a second time",
                name.place,
                ("plugins", index, "name"),
                f"the first one is in line {first[name.value].line}; names must differ",
            )
        first.setdefault(name.value, name)


def _report_plugin(plugin: Node, path: Path, findings: Findings) -> None:
    name = _child(plugin, "name")
    title = shown(name.source) if name is not None and name.source else "without a name"
    if _text(plugin, "mode") == "audit" and _text(plugin, "on_error") == "fail":
        findings.warn(
            "config-audit-never-fails",
            f"`on_error: fail` has no effect on plugin {title}: an audit plugin never stops a call",
            _key(plugin, "on_error").place,
            (*path, "on_error"),
            "remove it, or use `mode: sequential`; failures of audit plugins are recorded and logged",
        )
    _report_capabilities(plugin, (*path, "capabilities"), title, findings)
    _report_blank_conditions(plugin, (*path, "conditions"), title, findings)
    listed = _child(plugin, "hooks")
    hooks = _texts(listed)
    if hooks:
        _report_idle_conditions(plugin, hooks, (*path, "conditions"), title, findings)
    elif _text(plugin, "kind") not in _TELL_THEIR_HOOKS and _text(plugin, "mode") != "disabled":
        if listed is not None and listed.value != []:
            return
        place = plugin.place if listed is None else listed.place
        message = f"plugin {title} lists no hooks, so it is never called"
        findings.warn("config-no-hooks", message, place, path, "add `hooks:` with the names of the hooks to run on")


def _report_capabilities(plugin: Node, path: Path, title: str, findings: Findings) -> None:
    """Report unknown capabilities one by one, where the model would refuse the list."""
    node = _child(plugin, "capabilities")
    if node is None:
        return
    known = sorted({each.value for each in Capability} | EXTRA_CAPABILITIES)
    for index, each in enumerate([node] if node.items is None else node.items):
        if each.value is None or each.failed or (isinstance(each.value, Hashable) and each.value in known):
            continue
        at = path if node.items is None else (*path, index)
        message = f"unknown capability {shown(each.source or each.value)} of plugin {title}"
        findings.fault("config-unknown-value", message, each.place, at, did_you_mean(each.source, known))
        node.failed = True


def _report_idle_conditions(plugin: Node, hooks: list[str], path: Path, title: str, findings: Findings) -> None:
    """Report entity conditions that no hook of the plugin can ever judge, and which so restrict nothing."""
    conditions = _child(plugin, "conditions")
    own = join_names([shown(hook)[1:-1] for hook in hooks])
    for index, condition in enumerate((conditions.items if conditions is not None else None) or ()):
        for field in _ENTITIES:
            value = _child(condition, field)
            if value is None or not value.value or any(field in entity_fields(hook) for hook in hooks):
                continue
            findings.fault(
                "config-condition-never-applies",
                f"condition `{field}` of plugin {title} can never restrict anything: no hook of the plugin has one",
                _key(condition, field).place,
                (*path, index, field),
                f"its hooks: {own}; hooks that have one: {_hooks_with(field)}",
            )


def _report_blank_conditions(plugin: Node, path: Path, title: str, findings: Findings) -> None:
    """Report conditions that only a blank name could meet, such as an empty variable: the plugin would never run."""
    conditions = _child(plugin, "conditions")
    for index, condition in enumerate((conditions.items if conditions is not None else None) or ()):
        for field in (*_ENTITIES, "server_ids", "tenant_ids", "content_types"):
            names = _child(condition, field)
            if names is None or not names.items or any(each.failed for each in names.items):
                continue
            if all(isinstance(each.value, str) and not each.value.strip() for each in names.items):
                findings.fault(
                    "config-condition-never-applies",
                    f"condition `{field}` of plugin {title} can never hold: all that it lists is blank",
                    names.items[0].place,
                    (*path, index, field),
                    "name something, or remove the condition; a variable of the environment may be empty",
                )


def _hooks_with(field: str) -> str:
    names = [hook_name(each) for each in get_hook_registry().get_registered_hooks()]
    return join_names([name for name in names if field in entity_fields(name)])


def _child(node: Node, key: str) -> Node | None:
    pair = (node.keys or {}).get(key)
    return None if pair is None else pair[1]


def _key(node: Node, key: str) -> Node:
    return (node.keys or {})[key][0]


def _text(node: Node, key: str) -> str | None:
    child = _child(node, key)
    return child.value if child is not None and isinstance(child.value, str) else None


def _texts(node: Node | None) -> list[str]:
    return [] if node is None else [each.value for each in node.items or () if isinstance(each.value, str)]
