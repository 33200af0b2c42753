"""What editors say below `config:` and what the plugins of that kind accept agree."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import blocks, environment
from jsonschema import Draft7Validator
from property.test_config_schema import TEMPLATE, VALUES, as_json, check
from pydantic import BaseModel, ValidationError

from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.json_schema import config_schema
from cpex.framework.loader.kinds import registered_class, registered_kinds, transport_class
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.trial import find_plugin_faults

SCHEMA = config_schema()
VALIDATOR = Draft7Validator(SCHEMA)
OURS = sorted(
    name for name, entries in registered_kinds().items() if all(each.value.startswith("cpex.") for each in entries)
)
NEEDED: dict[str, dict[str, Any]] = {
    "webhook": {"url": "https://example.com/hook"},
    "observability.WebhookPlugin": {"url": "https://example.com/hook"},
    "security.PolicyDecisionPlugin": {"engine": "opa", "endpoint": "https://example.com/v1/data/a"},
}
"""Settings without which a kind does not start."""
PLACES = {
    "security.TokenBudgetPlugin": {"budgets.0": {"budgets": [{"tokens": 5}]}},
    "security.ContentPolicyPlugin": {"rules.0": {"rules": [{"name": "r", "words": ["w"]}]}},
    "security.InjectionGuardPlugin": {"patterns.0": {"patterns": [{"name": "p", "pattern": "x"}]}},
    "security.ToolAllowListPlugin": {"rules.0": {"rules": [{"allowed_tools": ["a"]}]}},
    "security.PolicyDecisionPlugin": {"tls": {**NEEDED["security.PolicyDecisionPlugin"], "tls": {}}},
    "privacy.PIIRedactionPlugin": {"presidio": {"presidio": {}}, "modes": {"modes": {"email": "mask"}}},
}
"""Settings inside of settings: where they stand -> the smallest settings that have the place."""
WRONG_BY_THEMSELVES = ("_type", "_parsing", "_from_float", "enum", "literal_error", "missing", "extra_forbidden")
"""Endings of pydantic's words for what a schema sees in one key or one value."""


def places() -> Iterator[Any]:
    for kind in OURS:
        for path, settings in {"": NEEDED.get(kind, {}), **PLACES.get(kind, {})}.items():
            yield pytest.param(kind, path, settings, id=f"{kind}:{path}" if path else kind)


def model_of(kind: str) -> type[BaseModel]:
    model = registered_class(kind).settings_model
    assert model is not None
    return model


def document(kind: str, settings: Any) -> dict[str, Any]:
    return {"plugins": [{"name": "p", "kind": kind, "hooks": ["tool_pre_invoke"], "config": settings}]}


def underlined(kind: str, settings: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(as_json(document(kind, settings)))]


def refusals(kind: str, settings: Any) -> list[str]:
    try:
        model_of(kind).model_validate(settings)
    except ValidationError as error:
        return [each["type"] for each in error.errors()]
    return []


def place(settings: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        settings = settings[int(part)] if part.isdigit() else settings[part]
    return settings


def keys_at(kind: str, path: str) -> list[str]:
    """The keys that the schema knows at a place, found as an editor finds them."""
    node: dict[str, Any] = SCHEMA["definitions"][model_of(kind).__name__]
    for part in filter(None, path.split(".")):
        node = node["items"] if part.isdigit() else node["properties"][part]
        node = next((each for each in node.get("anyOf", [node]) if each.get("type") != "null"), node)
        if "$ref" in node:
            node = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
    return list(node["properties"])


@pytest.mark.parametrize("kind", OURS)
def test_every_built_in_kind_tells_its_settings(kind: str) -> None:
    assert model_of(kind).model_config.get("extra") == "forbid"
    settings = SCHEMA["definitions"][model_of(kind).__name__]["properties"]
    assert settings.keys() == model_of(kind).model_fields.keys()
    assert [name for name, each in settings.items() if not each.get("description")] == []


@pytest.mark.parametrize(("kind", "path", "settings"), list(places()))
def test_whatever_setting_a_plugin_accepts_the_schema_accepts(kind: str, path: str, settings: Any) -> None:
    for key in keys_at(kind, path):
        for value in VALUES:
            given = copy.deepcopy(settings)
            place(given, path)[key] = value
            if not refusals(kind, given):
                assert underlined(kind, given) == [], (key, value)


@pytest.mark.parametrize(("kind", "path", "settings"), list(places()))
def test_values_of_a_wrong_kind_and_unknown_words_are_underlined(kind: str, path: str, settings: Any) -> None:
    # What a template becomes, a schema cannot know; YAML's dates are text to it.
    for key in keys_at(kind, path):
        for value in VALUES:
            given = copy.deepcopy(settings)
            place(given, path)[key] = value
            wrong = refusals(kind, given)
            if wrong and value != TEMPLATE and not isinstance(value, date):
                seen = all(each.endswith(WRONG_BY_THEMSELVES) for each in wrong)
                assert underlined(kind, given) != [] or not seen, (key, value, wrong)


@pytest.mark.parametrize(("kind", "path", "settings"), list(places()))
def test_an_unknown_setting_is_refused_by_both(kind: str, path: str, settings: Any) -> None:
    given = copy.deepcopy(settings)
    place(given, path)["no_such_setting"] = 1
    assert underlined(kind, given) != []
    assert underlined(kind, settings) == []
    if path != "modes":
        assert "extra_forbidden" in refusals(kind, given)


@pytest.mark.parametrize("kind", OURS)
def test_the_loader_and_the_schema_agree_on_a_whole_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for settings, fits in ((NEEDED.get(kind, {}), True), ({**NEEDED.get(kind, {}), "no_such_setting": 1}, False)):
        text = str(as_json(document(kind, settings)))
        loaded = ConfigLoader.load_text(text, file="page")
        # Mode and hooks are not every plugin's; only what is said about `config` counts here.
        faults = [f for f in find_plugin_faults(loaded, PluginLoader()) if ".config" in f.path]
        assert (faults == [], underlined(kind, settings) == []) == (fits, fits)


def test_settings_that_are_needed_are_missed() -> None:
    for kind in NEEDED:
        plugin = {"name": "p", "kind": kind, "hooks": ["tool_pre_invoke"]}
        assert list(VALIDATOR.iter_errors({"plugins": [plugin]})) != []
        assert list(VALIDATOR.iter_errors({"plugins": [{**plugin, "config": NEEDED[kind]}]})) == []


def test_a_class_is_known_by_its_path_too() -> None:
    cls = registered_class("security.TokenBudgetPlugin")
    assert underlined(f"{cls.__module__}.{cls.__qualname__}", {"buget": 1}) != []


@pytest.mark.parametrize("kind", ["acme.Guard", "security.TokenBudget", TEMPLATE])
@pytest.mark.parametrize("settings", [None, {}, {"anything": [1, {"a": None}]}])
def test_other_kinds_may_have_any_settings(kind: str, settings: Any) -> None:
    given = document(kind, settings)
    assert check(given).faults == ()
    assert list(VALIDATOR.iter_errors(given)) == []


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"class_name": "a.B", "worker_env": ["HOME"], "of_the_plugin": 1}, True),
        ({"class_name": "a.B", "timeout_secs": 5, "install_timeout_s": "60", "requirements_file": None}, True),
        ({"class_name": "a.B", "worker_env": "HOME"}, False),
        ({"class_name": "a.B", "timeout_secs": "soon"}, False),
        ({}, False),
    ],
)
def test_isolated_plugins_have_settings_of_the_host_and_of_their_own(
    settings: dict[str, Any], fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugins").mkdir()
    monkeypatch.chdir(tmp_path)
    assert (underlined("isolated_venv", settings) == []) == fits
    given = {**document("isolated_venv", settings), "plugin_dirs": ["plugins"]}
    loaded = ConfigLoader.load_text(str(given), file="page")
    loader = PluginLoader()
    loader.append_to_search_path(["plugins"])
    assert (find_plugin_faults(loaded, loader) == ()) == fits
    assert transport_class("isolated_venv").settings_model is not None


def package(folder: Path, code: str) -> dict[str, str]:
    """An installed package that registers `acme.Guard`; the environment in which it is found."""
    folder.joinpath("acme_guard.py").write_text(code, encoding="utf-8")
    about = folder / "acme_guard-1.0.dist-info"
    about.mkdir()
    about.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: acme-guard\nVersion: 1.0\n", encoding="utf-8")
    about.joinpath("entry_points.txt").write_text("[cpex.plugins]\nacme.Guard = acme_guard:Guard\n", encoding="utf-8")
    return environment(PYTHONPATH=str(folder))


def printed(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cpex.tools.cli", "schema", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_settings_of_other_packages_are_known_when_asked_for(tmp_path: Path) -> None:
    code = blocks("reference/configuration.md")["budget_guard.py"].replace("BudgetGuard", "Guard")
    env = package(tmp_path, code)
    assert json.loads(printed(env).stdout) == SCHEMA
    asked = printed(env, "--installed")
    assert asked.returncode == 0, asked.stderr
    validator = Draft7Validator(json.loads(asked.stdout))
    assert list(validator.iter_errors(document("acme.Guard", {"limit": 3}))) == []
    assert list(validator.iter_errors(document("acme.Guard", {"limt": 3}))) != []


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    asked = printed(package(tmp_path, "import no_such_module\n"), "--installed")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == (
        "error: kind `acme.Guard`: module `acme_guard` needs `no_such_module`, which is missing; "
        "install what provides it [schema-kind]\n  help: mend or remove the package, or leave out `--installed`\n"
    )


def test_an_unknown_setting_is_told_with_the_known_ones() -> None:
    settings = {"budgets": [{"tokens": 3, "peroid": "day"}], "buget": 5}
    loaded = ConfigLoader.load_text(str(document("security.TokenBudgetPlugin", settings)), file="page")
    assert [(fault.message, fault.help) for fault in find_plugin_faults(loaded, PluginLoader())] == [
        (
            "unknown key `peroid` of plugin `p`",
            "did you mean `period`? known: tokens, scope, period, period_s",
        ),
        (
            "unknown key `buget` of plugin `p`",
            "did you mean `budget`? known: store, on_store_error, budget, period_s, budgets, tokenizer, max_sessions",
        ),
    ]
