"""What editors say about configurations with the line that names the schema: their YAML server, run for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from yaml_language_server import Editor, editor, server_command

from cpex.framework.loader.json_schema import config_schema
from cpex.tools.schema import HEADER
from cpex.tools.templates import SCHEMA_FILE, STARTER, ProjectValues, render

COMMAND = server_command()
pytestmark = pytest.mark.skipif(
    COMMAND is None, reason="yaml-language-server is not installed; `make services` does it where there is npm"
)
BUDGET = "plugins:\n  - name: a\n    kind: security.TokenBudgetPlugin\n    hooks: [tool_pre_invoke]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("configurations")
    (made / SCHEMA_FILE).write_text(json.dumps(config_schema()), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def opened(folder: Path) -> Iterator[Editor]:
    with editor(COMMAND or [], folder) as found:
        yield found


def write(folder: Path, text: str) -> tuple[Path, str]:
    """A configuration with the line at its head, in a file that the server has not seen."""
    return folder / f"{uuid4().hex}.yaml", f"{HEADER}{SCHEMA_FILE}\n{text}"


def underlined(opened: Editor, folder: Path, text: str) -> list[tuple[str, str]]:
    """What is underlined, to the end of its line, and what is said about it."""
    path, whole = write(folder, text)
    lines = whole.splitlines()
    starts = [(each["range"]["start"], each["message"]) for each in opened.open(path, whole)]
    return [(lines[start["line"]][start["character"] :], message) for start, message in starts]


def offered(opened: Editor, folder: Path, text: str) -> set[str]:
    """What is offered at the end of a text."""
    path, whole = write(folder, text)
    opened.open(path, whole + "\n")
    return opened.completions(path, whole.count("\n"), len(whole.rpartition("\n")[2]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BUDGET + "    config:\n      budget: 5\n", []),
        (BUDGET + "    config:\n      buget: 5\n", [("buget: 5", "Property buget is not allowed.")]),
        (BUDGET + "    prio: 5\n", [("prio: 5", "Property prio is not allowed.")]),
        (
            BUDGET + "    config:\n      budgets:\n        - tokens: 4\n          peroid: day\n",
            [("peroid: day", "Property peroid is not allowed.")],
        ),
        (
            BUDGET + "    config:\n      on_store_error: maybe\n",
            [("maybe", 'Value is not accepted. Valid values: "deny", "allow", "local".')],
        ),
        (
            BUDGET + "    config:\n      budget: [5]\n",
            [("[5]", 'Incorrect type. Expected "integer | boolean | string".')],
        ),
        (
            "plugins:\n  - name: a\n    kind: webhook\n    config:\n      timeout_s: 5\n",
            [("config:", 'Missing property "url".')],
        ),
        ("plugins:\n  - name: a\n    kind: acme.Own\n    config:\n      anything: [1, {a: 2}]\n", []),
    ],
)
def test_settings_are_underlined_where_they_are_wrong(
    opened: Editor, folder: Path, text: str, said: list[tuple[str, str]]
) -> None:
    assert underlined(opened, folder, text) == said


def test_settings_of_the_kind_are_completed(opened: Editor, folder: Path) -> None:
    assert {"budget", "budgets", "store"} <= offered(opened, folder, BUDGET + "    config:\n      ")
    assert offered(opened, folder, BUDGET + "    config:\n      on_store_error: ") == {"deny", "allow", "local"}
    redactor = "plugins:\n  - name: a\n    kind: privacy.PIIRedactionPlugin\n    config:\n      modes:\n        "
    assert {"email", "phone"} <= offered(opened, folder, redactor)
    assert offered(opened, folder, "plugins:\n  - name: a\n    kind: acme.Own\n    config:\n      ") == set()


def test_kinds_keys_and_words_are_completed(opened: Editor, folder: Path) -> None:
    assert {"security.RateLimitPlugin", "external"} <= offered(opened, folder, "plugins:\n  - name: a\n    kind: ")
    assert {"mode", "on_error", "conditions"} <= offered(opened, folder, BUDGET + "    ")
    assert {"sequential", "transform"} <= offered(opened, folder, BUDGET + "    mode: ")


def test_a_setting_is_explained(opened: Editor, folder: Path) -> None:
    path, whole = write(folder, f"{BUDGET}    config:\n      budget: 5\n")
    opened.open(path, whole)
    assert "Tokens that one conversation may spend" in opened.hover(path, 6, 8)


def test_the_configuration_of_a_new_project_is_understood_and_not_underlined(opened: Editor, folder: Path) -> None:
    project = folder / "guards"
    render(STARTER, project, ProjectValues("guards", "Guards", "Ann", "ann@example.com", "Guards."))
    path = project / "plugins" / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert opened.open(path, text) == []
    wrong = text.replace("mode: transform", "mode: tranform")
    assert [each["message"].partition(".")[0] for each in opened.open(path.with_name("wrong.yaml"), wrong)] == [
        "Value is not accepted"
    ]
