"""Which instances belong to a plugin, and what importing the installer costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpex.framework.models.manifest import PluginManifest
from cpex.tools.installing import Request, is_of

MANIFEST = PluginManifest(
    name="My Plugin",
    kind="isolated_venv",
    description="d",
    author="a",
    version="1.0",
    tags=[],
    available_hooks=[],
    default_config={"class_name": "pkg.plugin.Guard"},
)
OWN = {"kind": "isolated_venv", "config": {"class_name": "pkg.plugin.Guard", "limit": 9}}


@pytest.mark.conformance("P17")
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({**OWN, "name": "my-plugin"}, True),
        ({**OWN, "name": "my-plugin_2"}, True),
        ({**OWN, "name": "my-plugin-filter"}, False),
        ({**OWN, "name": "my-plugin_x"}, False),
        ({**OWN, "name": "My Plugin"}, False),
        ({**OWN, "name": "my-plugin", "config": {"class_name": "pkg.plugin.Other"}}, False),
        ({**OWN, "name": "my-plugin", "kind": "pkg.plugin.Guard"}, False),
        ({"name": "my-plugin"}, False),
    ],
)
def test_an_instance_is_known_by_kind_class_and_name(entry: dict[str, Any], expected: bool) -> None:
    assert is_of(entry, MANIFEST) is expected


def test_names_and_constraints_are_read_from_a_source() -> None:
    read = [
        Request("pkg@>=1,<2", "pypi"),
        Request("pkg", "test-pypi"),
        Request("A Name @ git+https://h/r@v1", "git"),
        Request("./a@b", "local"),
    ]
    assert [(each.name, each.constraint) for each in read] == [
        ("pkg", ">=1,<2"),
        ("pkg", None),
        ("A Name", None),
        ("./a@b", None),
    ]


@pytest.mark.conformance("P8")
def test_importing_the_tools_changes_no_variable_and_loads_no_client(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PLUGINS_FOLDER=elsewhere\nCPEX_PLANTED=1\n")
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import cpex.tools.catalog, cpex.tools.installing, cpex.tools.plugins\n"
        "import cpex.tools.integrity, cpex.tools.refreshing, cpex.tools.settings\n"
        "cpex.tools.catalog.PluginCatalog()\n"
        "assert dict(os.environ) == before\n"
        "print('httpx2' in sys.modules, list(__import__('pathlib').Path().iterdir()))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False [PosixPath('.env')]\n", done.stderr
