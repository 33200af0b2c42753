from __future__ import annotations

from pathlib import Path

import pytest

from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.trial import find_plugin_faults

MODULE = """\
from pydantic import BaseModel
from cpex.framework.base import Plugin


class Settings(BaseModel, extra="forbid"):
    limit: int = 5
    nested: dict[str, list[int]] = {}


class Strict(Plugin):
    def __init__(self, config):
        super().__init__(config)
        Settings.model_validate(config.config or {})

    async def initialize(self):
        raise AssertionError("a trial initialises nothing")

    async def tool_pre_invoke(self, payload, context): ...

    def tool_post_invoke(self, payload, context): ...


class Shy(Plugin):
    @property
    def hook_completed(self): ...

    def __getattribute__(self, name):
        if name == "tool_pre_invoke":
            raise ValueError("not with " + self.config.config["token"])
        return super().__getattribute__(name)


class Exits(Plugin):
    def __init__(self, config):
        raise SystemExit(0)


class Broken(Plugin):
    def __init__(self, config):
        raise OSError("no disk with " + config.config["token"])
"""

CONFIG = """\
plugins:
  - {name: good, kind: e_trial.Strict, hooks: [tool_pre_invoke], config: {limit: 7}}
  - {name: idle, kind: e_nowhere.Gone, mode: disabled}
  - {name: gone, kind: e_trial.Stric, hooks: [tool_pre_invoke]}
  - name: bad
    kind: e_trial.Strict
    hooks: [tool_pre_invoke]
    config:
      limit: many
      limt: 5
      nested: {a: [1, x]}
  - {name: hooks, kind: e_trial.Strict, hooks: [tool_pre_invok, tool_post_invoke]}
  - {name: shy, kind: e_trial.Shy, hooks: [tool_pre_invoke], config: {token: "{{ env.TOKEN }}"}}
  - {name: exits, kind: e_trial.Exits, hooks: [tool_pre_invoke]}
  - {name: program, kind: e_program.Any, hooks: [tool_pre_invoke]}
  - {name: broken, kind: e_trial.Broken, hooks: [tool_pre_invoke], config: {token: "{{ env.TOKEN }}"}}
"""


@pytest.mark.conformance("D4")
def test_everything_that_keeps_plugins_from_starting_is_found_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "e_trial.py").write_text(MODULE)
    (tmp_path / "e_program.py").write_text("import sys\n\nsys.exit(0)\n")
    loader = PluginLoader()
    loader.append_to_search_path([str(tmp_path)])
    loaded = ConfigLoader.load_text(CONFIG, file="c.yaml", env={"TOKEN": "hunter2"})
    *others, broken = faults = find_plugin_faults(loaded, loader)
    assert [(fault.code, fault.location, fault.path) for fault in faults] == [
        ("config-kind", "c.yaml:4:24", "plugins[2].kind"),
        ("config-type", "c.yaml:9:14", "plugins[3].config.limit"),
        ("config-unknown-key", "c.yaml:10:7", "plugins[3].config.limt"),
        ("config-type", "c.yaml:11:23", "plugins[3].config.nested.a[1]"),
        ("config-unknown-hook", "c.yaml:12:49", "plugins[4].hooks[0]"),
        ("config-unknown-hook", "c.yaml:12:65", "plugins[4].hooks[1]"),
        ("config-unknown-hook", "c.yaml:13:44", "plugins[5].hooks[0]"),
        ("config-plugin-construct", "c.yaml:14:5", "plugins[6]"),
        ("config-kind", "c.yaml:15:27", "plugins[7].kind"),
        ("config-plugin-construct", "c.yaml:16:76", "plugins[8].config"),
    ]
    assert [fault.message for fault in others[:4]] == [
        "kind `e_trial.Stric`: module `e_trial` has no class `Stric`; did you mean `Strict`?",
        "`limit` of plugin `bad` must be a whole number, not text",
        "unknown key `limt` of plugin `bad`",
        "an entry of `a` of plugin `bad` must be a whole number, not text",
    ]
    assert [fault.message for fault in others[-3:]] == [
        "not with {{ env.TOKEN }}",
        "plugin `exits` cannot be constructed: PluginError: the constructor of plugin exits called sys.exit(); raise "
        "an exception that says what is wrong",
        "kind `e_program.Any`: importing `e_program` called sys.exit(); put what is run as a program under "
        '`if __name__ == "__main__":`',
    ]
    assert broken.render() == (
        "error: plugin `broken` cannot be constructed: OSError: no disk with {{ env.TOKEN }} "
        "[config-plugin-construct]\n"
        "  at c.yaml:16:76 (plugins[8].config)\n"
        "  help: look at its settings under `config:`"
    )
