from __future__ import annotations

from pathlib import Path

import pytest

from cpex.framework.errors import ConfigError
from cpex.tools.plan import flow_chart
from cpex.tools.planning import PlannedHook, load_plan

CONFIG = """\
plugin_dirs: [.]
hook_timeout_s: 9
plugin_timeout_s: 4
plugins:
  - {name: tail, kind: t_plugins.Guard, mode: fire_and_forget, hooks: [tool_pre_invoke], on_error: ignore}
  - name: two
    kind: t_plugins.Guard
    hooks: [tool_pre_invoke, tool_post_invoke]
    priority: 50
    capabilities: [read_agent, write_headers, read_headers]
  - {name: side, kind: t_plugins.Guard, mode: concurrent, hooks: [tool_pre_invoke], priority: 1}
  - {name: other, kind: t_plugins.Guard, mode: concurrent, hooks: [tool_pre_invoke], priority: 1}
  - {name: eye, kind: t_plugins.Guard, mode: audit, hooks: [tool_pre_invoke], priority: 1}
  - {name: pen, kind: t_plugins.Guard, mode: transform, hooks: [tool_pre_invoke], priority: 2, timeout_s: 0.5}
  - name: one
    kind: t_plugins.Guard
    hooks: [tool_pre_invoke]
    priority: 50
    conditions: [{tools: [b, a], tenant_ids: [t]}, {server_ids: [s]}]
  - {name: idle, kind: t_plugins.Gone, mode: disabled, hooks: [tool_pre_invoke]}
  - {name: mute, kind: t_plugins.Guard}
"""


def write(folder: Path, content: str = CONFIG) -> str:
    (folder / "c.yaml").write_text(content)
    return "c.yaml"


@pytest.mark.parametrize("imports", [True, False])
def test_turns_stand_in_the_order_in_which_they_run(plugins: Path, imports: bool) -> None:
    planned = load_plan(write(plugins), imports=imports)
    pre, post = planned.hooks
    assert [(step.plugin, step.mode) for step in pre.steps] == [
        ("two", "sequential"),
        ("one", "sequential"),
        ("pen", "transform"),
        ("eye", "audit"),
        ("side", "concurrent"),
        ("other", "concurrent"),
        ("tail", "fire_and_forget"),
    ]
    assert (post.hook, [step.plugin for step in post.steps]) == ("tool_post_invoke", ["two"])
    assert (planned.hook_timeout_s, planned.disabled, planned.hooks_unknown) == (9, ("idle",), ("mute",))
    assert (pre.payload, post.payload) == ("ToolPreInvokePayload", "ToolPostInvokePayload")


def test_each_turn_says_what_it_may_do_and_when(plugins: Path) -> None:
    steps = {step.plugin: step for step in load_plan(write(plugins)).hooks[0].steps}
    assert {name: step.may for name, step in steps.items()} == {
        "two": ("block", "rewrite"),
        "one": ("block", "rewrite"),
        "pen": ("rewrite",),
        "eye": ("watch",),
        "side": ("block",),
        "other": ("block",),
        "tail": ("watch",),
    }
    assert steps["one"].conditions == ("tenant_ids: t; tools: a, b", "server_ids: s")
    assert steps["two"].conditions == ()
    assert (steps["pen"].timeout_s, steps["two"].timeout_s) == (0.5, 4)
    assert steps["two"].capabilities == ("read_agent", "read_headers", "write_headers")
    assert (steps["tail"].on_error, steps["two"].on_error) == ("ignore", "fail")


def test_plugins_are_constructed_and_not_initialised(plugins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        plugins, "plugin_dirs: [.]\nplugins:\n  - {name: s, kind: t_plugins.Strict, hooks: [tool_pre_invoke]}\n"
    )
    load_plan(file)
    assert capsys.readouterr().out == "constructed\n"
    load_plan(file, imports=False)
    assert capsys.readouterr().out == ""


def test_all_plugins_that_cannot_be_made_are_told_with_their_places(plugins: Path) -> None:
    content = "plugin_dirs: [.]\nplugins:\n  - {name: a, kind: t_plugins.Gard}\n  - {name: b, kind: t_plugins.Plug}\n"
    with pytest.raises(ConfigError) as caught:
        load_plan(write(plugins, content))
    assert [fault.location for fault in caught.value.faults] == ["c.yaml:3:21", "c.yaml:4:21"]


def test_an_external_plugin_is_planned_without_its_server(plugins: Path) -> None:
    content = """\
plugins:
  - name: far
    kind: external
    hooks: [tool_pre_invoke]
    mcp: {proto: STREAMABLEHTTP, url: "https://example.com/mcp"}
"""
    (hook,) = load_plan(write(plugins, content)).hooks
    assert [(step.plugin, step.kind) for step in hook.steps] == [("far", "external")]


def test_the_flow_chart_draws_phases_denials_and_the_background(plugins: Path) -> None:
    hooks = load_plan(write(plugins)).hooks
    assert (
        flow_chart(hooks[:1])
        == """\
flowchart LR
  subgraph h0["tool_pre_invoke"]
    h0_call([call])
    h0_end([decision])
    h0_1["two<br/>sequential 50<br/>block / rewrite"]
    h0_2["one<br/>sequential 50<br/>block / rewrite"]
    h0_3["pen<br/>transform 2<br/>rewrite"]
    h0_4["eye<br/>audit 1<br/>watch"]
    h0_5["side<br/>concurrent 1<br/>block"]
    h0_6["other<br/>concurrent 1<br/>block"]
    h0_7["tail<br/>fire_and_forget 100<br/>watch"]
    h0_call --> h0_1
    h0_1 --> h0_2
    h0_2 --> h0_3
    h0_3 --> h0_4
    h0_4 --> h0_5
    h0_4 --> h0_6
    h0_5 --> h0_end
    h0_6 --> h0_end
    h0_1 -. deny .-> h0_end
    h0_2 -. deny .-> h0_end
    h0_5 -. deny .-> h0_end
    h0_6 -. deny .-> h0_end
    h0_end -.-> h0_7
  end
"""
    )


def test_names_cannot_break_out_of_the_flow_chart() -> None:
    chart = flow_chart([PlannedHook('x"]\nend<b>', None, ())])
    assert '  subgraph h0["x#quot;]\\nend#lt;b>"]' in chart.splitlines()
