from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cpex.framework.errors import ConfigError, ConfigFileNotFound
from cpex.framework.loader.config import CheckedConfig, ConfigLoader, ConfigSaver, config_digest
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.mode import OnError, PluginMode

GOOD = """\
plugins:
  - name: a
    kind: x.A
    hooks: [tool_pre_invoke]
"""


def check(text: str | bytes, env: dict[str, str] | None = None, *, strict: bool = True) -> CheckedConfig:
    return ConfigLoader.check_text(text, file="c.yaml", strict=strict, env=env or {})


def rendered(text: str | bytes, env: dict[str, str] | None = None) -> str:
    return "\n".join(fault.render() for fault in check(text, env).faults)


def codes(text: str | bytes, env: dict[str, str] | None = None) -> list[str]:
    return [fault.code for fault in check(text, env).faults]


def one_plugin(*lines: str) -> str:
    return GOOD + "".join(f"    {line}\n" for line in lines)


def test_a_file_becomes_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(GOOD)
    config = ConfigLoader.load_config(str(file))
    assert [(each.name, each.kind, each.hooks) for each in config.plugins or []] == [("a", "x.A", ["tool_pre_invoke"])]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert check(b"\xef\xbb\xbf" + GOOD.encode()).faults == ()


def test_the_empty_path_is_the_empty_configuration() -> None:
    assert ConfigLoader.load_config("") == Config()


@pytest.mark.conformance("D2")
def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileNotFound) as caught:
        ConfigLoader.load_config(str(tmp_path / "none.yaml"))
    assert isinstance(caught.value, FileNotFoundError)
    assert str(caught.value) == (
        f"error: configuration file `{tmp_path}/none.yaml` cannot be read: there is no such file "
        "[config-file-not-found]\n"
        f"  at {tmp_path}/none.yaml\n"
        "  help: give the path of a YAML file"
    )


@pytest.mark.conformance("D2")
def test_a_folder_and_an_impossible_path_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileNotFound, match="it is a folder"):
        ConfigLoader.load(tmp_path)
    with pytest.raises(ConfigFileNotFound, match="cannot be read"):
        ConfigLoader.load("a\0b")


def test_bytes_that_are_not_utf8_are_reported_with_their_place() -> None:
    assert rendered("a: é\nb: ".encode() + b"\xff\xfe") == (
        "error: byte 0xff is not UTF-8 [config-encoding]\n  at c.yaml:2:4\n  help: save the file as UTF-8"
    )


def test_a_text_without_a_value_is_empty_and_a_warning_says_so() -> None:
    for text in ("", "# nothing\n", "---\n", "null"):
        checked = check(text)
        assert checked.config == Config()
        assert [each.code for each in checked.warnings] == ["config-empty"]


@pytest.mark.parametrize("text", ["[]", "5", "text", "- a: 1", "!!set {a}"])
def test_a_text_that_is_no_mapping_is_an_error(text: str) -> None:
    assert codes(text) == ["config-type"]


def test_plugins_without_a_value_are_no_plugins() -> None:
    assert check("plugins:\n").config == Config(plugins=None)


@pytest.mark.conformance("D3")
def test_all_faults_are_reported_at_once_in_order_of_position() -> None:
    text = """\
plugins:
  - name: pii-filter
    kind: a.B
    mode: sequental
    priorty: 3
    hooks: tool_pre_invoke
    priority: high
    timeout_s: -1
    capabilities: [read_heders]
  - kindd: x
    hooks: [tool_pre_invoke]
  - hello
plugin_dir: [x]
server_settings: {port: x, tls: {cafile: y}}
"""
    assert rendered(text) == (
        "error: unknown mode `sequental` for plugin `pii-filter` [config-unknown-value]\n"
        "  at c.yaml:4:11 (plugins[0].mode)\n"
        "  help: did you mean `sequential`? known: sequential, transform, audit, concurrent, fire_and_forget, "
        "disabled\n"
        "error: unknown key `priorty` of a plugin [config-unknown-key]\n"
        "  at c.yaml:5:5 (plugins[0].priorty)\n"
        "  help: did you mean `priority`? known: name, description, author, kind, namespace, version, hooks, tags, "
        "mode, on_error, priority, max_content_size and 12 more\n"
        "error: `hooks` of plugin `pii-filter` must be a list, not text [config-type]\n"
        "  at c.yaml:6:12 (plugins[0].hooks)\n"
        "  help: write a list: `[tool_pre_invoke]`\n"
        "error: `priority` of plugin `pii-filter` must be a whole number, not text [config-type]\n"
        "  at c.yaml:7:15 (plugins[0].priority)\n"
        "error: `timeout_s` of plugin `pii-filter` must be greater than 0 [config-invalid-value]\n"
        "  at c.yaml:8:16 (plugins[0].timeout_s)\n"
        "error: unknown capability `read_heders` of plugin `pii-filter` [config-unknown-value]\n"
        "  at c.yaml:9:20 (plugins[0].capabilities[0])\n"
        "  help: did you mean `read_headers`? known: append_delegation, append_labels, read_agent, read_claims, "
        "read_delegated_tokens, read_delegation, read_headers, read_inbound_credentials, read_labels, "
        "read_permissions, read_roles, read_subject and 2 more\n"
        "error: unknown key `kindd` of a plugin [config-unknown-key]\n"
        "  at c.yaml:10:5 (plugins[1].kindd)\n"
        "  help: did you mean `kind`? known: name, description, author, kind, namespace, version, hooks, tags, "
        "mode, on_error, priority, max_content_size and 12 more\n"
        "error: `name` is missing [config-missing-key]\n"
        "  at c.yaml:10:5 (plugins[1].name)\n"
        "  help: add `name:` and a value here\n"
        "error: `kind` is missing [config-missing-key]\n"
        "  at c.yaml:10:5 (plugins[1].kind)\n"
        "  help: add `kind:` and a value here\n"
        "error: an entry of `plugins` must be a mapping, not text [config-type]\n"
        "  at c.yaml:12:5 (plugins[2])\n"
        "error: unknown key `plugin_dir` [config-unknown-key]\n"
        "  at c.yaml:13:1 (plugin_dir)\n"
        "  help: did you mean `plugin_dirs`? known: plugins, plugin_dirs, server_settings, grpc_server_settings, "
        "unix_socket_server_settings, plugin_timeout_s, hook_timeout_s, max_payload_bytes, background_limit, "
        "drain_timeout_s, coverage\n"
        "error: `port` must be a whole number, not text [config-type]\n"
        "  at c.yaml:14:25 (server_settings.port)\n"
        "error: unknown key `cafile` under `tls` [config-unknown-key]\n"
        "  at c.yaml:14:34 (server_settings.tls.cafile)\n"
        "  help: did you mean `certfile`? known: certfile, keyfile, ca_bundle, keyfile_password, ssl_cert_reqs"
    )


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_that_no_payload_fits_is_refused_in_its_place(size: int) -> None:
    assert rendered(one_plugin(f"max_content_size: {size}")).splitlines()[:2] == [
        "error: `max_content_size` of plugin `a` must be greater than 0 [config-invalid-value]",
        "  at c.yaml:5:23 (plugins[0].max_content_size)",
    ]


def test_the_error_carries_every_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        ConfigLoader.load_text("plugins: [{}, {}]", file="c.yaml", strict=True)
    assert [fault.path for fault in caught.value.faults] == [
        "plugins[0].name",
        "plugins[0].kind",
        "plugins[1].name",
        "plugins[1].kind",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("config: {anything: {goes: 1}, any: [{x: 1}]}",),
        ("applied_to: {tools: [{tool_name: t, extensions: {free: {form: 1}}}]}",),
    ],
)
def test_free_form_settings_have_no_unknown_keys(lines: tuple[str, ...]) -> None:
    assert codes(one_plugin(*lines)) == []


@pytest.mark.conformance("D3")
@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("conditions: [{user_pattern: [a]}]", "plugins[0].conditions[0].user_pattern"),
        ("applied_to: {tool: []}", "plugins[0].applied_to.tool"),
        ("applied_to: {tools: [{tool_name: t, field: [a]}]}", "plugins[0].applied_to.tools[0].field"),
        ("grpc: {target: 'a:1', tls: {verfy: true}}", "plugins[0].grpc.tls.verfy"),
        ("1: x", "plugins[0][1]"),
    ],
)
def test_unknown_keys_are_found_at_every_depth(line: str, path: str) -> None:
    (fault,) = check(one_plugin(line)).faults
    assert (fault.code, fault.path) == ("config-unknown-key", path)


@pytest.mark.conformance("D3")
def test_leniency_turns_lapses_into_warnings() -> None:
    checked = check(
        one_plugin("priorty: 1", "config: {a: '{{ env.NONE }}'}", "mode: audit", "mode: audit"), strict=False
    )
    assert checked.faults == ()
    assert [each.code for each in checked.warnings] == [
        "config-unknown-key",
        "config-undefined-variable",
        "config-duplicate-key",
    ]
    assert checked.config is not None
    assert checked.config.plugins is not None
    assert checked.config.plugins[0].config == {"a": ""}


def test_the_setting_decides_about_leniency() -> None:
    code = (
        "from cpex.framework.loader.config import ConfigLoader\n"
        "print(len(ConfigLoader.check_text('plugin_dir: []').faults))"
    )
    for word, faults in (("false", "0"), ("true", "1")):
        env = {**os.environ, "PLUGINS_STRICT_CONFIG": word}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == faults


def test_old_mode_words_are_understood() -> None:
    checked = check(
        "plugins:\n"
        "  - {name: a, kind: x.A, hooks: [h], mode: enforce}\n"
        "  - {name: b, kind: x.A, hooks: [h], mode: permissive}\n"
        "  - {name: c, kind: x.A, hooks: [h], mode: enforce_ignore_error}\n"
    )
    assert checked.faults == checked.warnings == ()
    assert checked.config is not None
    assert [(each.mode, each.on_error) for each in checked.config.plugins or []] == [
        (PluginMode.SEQUENTIAL, OnError.FAIL),
        (PluginMode.TRANSFORM, OnError.FAIL),
        (PluginMode.SEQUENTIAL, OnError.IGNORE),
    ]


@pytest.mark.conformance("D3")
def test_plugin_settings_are_accepted_with_one_warning() -> None:
    checked = check("plugin_settings: {parallel: true, nested: {x: 1}}\n" + GOOD)
    assert checked.faults == ()
    assert [each.render() for each in checked.warnings] == [
        "error: `plugin_settings` has no effect [config-ignored-key]\n"
        "  at c.yaml:1:1 (plugin_settings)\n"
        "  help: remove it; see `plugin_timeout_s`, `hook_timeout_s` and the `on_error` of each plugin"
    ]


def test_a_second_plugin_of_the_same_name_is_a_fault() -> None:
    text = GOOD + "  - {name: a, kind: x.B, hooks: [h]}\n"
    assert rendered(text) == (
        "error: plugin `a` is defined a second time [config-duplicate-plugin]\n"
        "  at c.yaml:5:12 (plugins[1].name)\n"
        "  help: the first one is in line 2; names must differ"
    )


@pytest.mark.conformance("D5")
def test_a_condition_that_can_never_restrict_is_a_fault() -> None:
    assert rendered(one_plugin("conditions: [{tools: [a]}, {prompts: [p]}, {server_ids: [s], agents: []}]")) == (
        "error: condition `prompts` of plugin `a` can never restrict anything: no hook of the plugin has one "
        "[config-condition-never-applies]\n"
        "  at c.yaml:5:33 (plugins[0].conditions[1].prompts)\n"
        "  help: its hooks: tool_pre_invoke; hooks that have one: prompt_pre_fetch, prompt_post_fetch, evaluate, "
        "cmf.tool_pre_invoke, cmf.tool_post_invoke, cmf.llm_input, cmf.llm_output, cmf.resource_pre_fetch, "
        "cmf.resource_post_fetch, cmf.prompt_pre_fetch, cmf.prompt_post_fetch"
    )


@pytest.mark.conformance("D5")
@pytest.mark.parametrize(
    ("hooks", "field", "restricts"),
    [
        ("token_delegate", "tools", True),
        ("identity_resolve", "tools", False),
        ("cmf.tool_pre_invoke", "tools", True),
        ("cmf.llm_input", "resources", True),
        ("cmf.llm_input", "agents", False),
        ("http_pre_request", "tools", False),
        ("http_pre_request, agent_pre_invoke", "agents", True),
        ("my_hook", "prompts", False),
    ],
)
def test_a_condition_needs_a_hook_that_has_the_entity(hooks: str, field: str, restricts: bool) -> None:
    text = f"plugins: [{{name: a, kind: x.A, hooks: [{hooks}], conditions: [{{{field}: [e]}}]}}]"
    assert codes(text) == ([] if restricts else ["config-condition-never-applies"])


@pytest.mark.parametrize("field", ["tools", "server_ids", "tenant_ids", "content_types"])
def test_a_condition_that_lists_only_blanks_can_never_hold(field: str) -> None:
    assert rendered(one_plugin(f"conditions: [{{{field}: ['', ' ']}}]")) == (
        f"error: condition `{field}` of plugin `a` can never hold: all that it lists is blank "
        "[config-condition-never-applies]\n"
        f"  at c.yaml:5:{22 + len(field)} (plugins[0].conditions[0].{field})\n"
        "  help: name something, or remove the condition; a variable of the environment may be empty"
    )
    assert codes(one_plugin(f"conditions: [{{{field}: ['', a]}}, {{{field}: []}}]")) == []


def test_an_empty_variable_of_the_environment_does_not_switch_a_guard_off() -> None:
    text = one_plugin("conditions: [{tenant_ids: ['{{ env.TENANT }}']}]")
    checked = ConfigLoader.check_text(text, file="c.yaml", env={"TENANT": ""})
    assert [(each.code, each.line) for each in checked.faults] == [("config-condition-never-applies", 5)]


@pytest.mark.parametrize("name", ["''", "'  '"])
def test_a_plugin_s_name_must_not_be_blank(name: str) -> None:
    assert rendered(f"plugins: [{{name: {name}, kind: x.A, hooks: [h]}}]") == (
        "error: the name of a plugin must not be blank [config-invalid-value]\n"
        "  at c.yaml:1:18 (plugins[0].name)\n"
        "  help: give it one"
    )


@pytest.mark.parametrize(
    "setting",
    [
        "timeout: .nan",
        "timeout: .inf",
        "timeout: 0",
        "reconnect_delay: .nan",
        "reconnect_delay: -1",
        "reconnect_attempts: -1",
    ],
)
def test_a_time_of_a_transport_that_no_clock_reaches_is_a_fault(setting: str) -> None:
    """A timer at no number would upset the order of all timers of the event loop, other plugins' deadlines included."""
    text = f"plugins: [{{name: a, kind: external, hooks: [h], unix_socket: {{path: /s, {setting}}}}}]"
    checked = check(text)
    assert [(each.code, each.path) for each in checked.faults] == [
        ("config-invalid-value", f"plugins[0].unix_socket.{setting.partition(':')[0]}")
    ]


@pytest.mark.conformance("D7a")
def test_on_error_fail_beside_audit_is_warned_about() -> None:
    checked = check(one_plugin("mode: audit", "on_error: fail"))
    assert checked.faults == ()
    assert [(each.code, each.line, each.path) for each in checked.warnings] == [
        ("config-audit-never-fails", 6, "plugins[0].on_error")
    ]
    assert check(one_plugin("mode: audit")).warnings == ()


def test_a_plugin_without_hooks_is_warned_about_unless_they_may_come_from_elsewhere() -> None:
    assert [each.code for each in check("plugins: [{name: a, kind: x.A}]").warnings] == ["config-no-hooks"]
    assert check("plugins: [{name: a, kind: external, unix_socket: {path: /s}}]").warnings == ()
    assert check("plugins: [{name: a, kind: x.A, mode: disabled}]").warnings == ()


def test_truth_words_in_place_of_text_get_a_hint() -> None:
    assert rendered("plugins: [{name: on, kind: x.A, hooks: [h]}]") == (
        "error: `name` must be text, not a truth value [config-type]\n"
        "  at c.yaml:1:18 (plugins[0].name)\n"
        "  help: YAML reads the words on, off, yes, no, true, false as truth values; put quotes around the text"
    )


def test_a_name_that_is_no_text_in_a_plugins_settings_is_a_fault() -> None:
    assert rendered(one_plugin("config: {1: x}")) == (
        "error: a name under `config` of plugin `a` must be text, not a number [config-type]\n"
        "  at c.yaml:5:14 (plugins[0].config[1])\n"
        "  help: put quotes around it"
    )


@pytest.mark.conformance("D6")
def test_one_bare_capability_is_a_list_of_one() -> None:
    checked = check(one_plugin("capabilities: read_headers"))
    assert checked.config is not None
    assert (checked.config.plugins or [])[0].capabilities == {"read_headers"}
    assert codes(one_plugin("capabilities: reed_headers")) == ["config-unknown-value"]
    assert codes(one_plugin("capabilities: [[a], {b: c}]")) == ["config-unknown-value"] * 2


def test_a_path_longer_than_any_file_name_is_a_fault_of_its_plugin() -> None:
    text = GOOD + "  - {name: b, kind: external, grpc: {target: 'a:1', tls: {certfile: " + "x" * 5000 + "}}}\n"
    (fault,) = check(text).faults
    assert (fault.code, fault.path.split(".")[0], fault.line) == ("config-invalid-value", "plugins[1]", 5)


def test_messages_show_the_template_and_not_the_value() -> None:
    text = one_plugin("mode: {{ env.MODE }}", "mcp: {proto: STREAMABLEHTTP, url: 'ftp://u:{{ env.PW }}@h'}")
    shown = rendered(text, {"MODE": "hunter2000", "PW": "hunter2000"})
    assert "hunter2000" not in shown
    assert "unknown mode `{{ env.MODE }}` for plugin `a`" in shown


def test_a_value_with_a_fault_of_its_own_gets_no_second_one() -> None:
    assert codes(one_plugin("priority: {{ env.NONE }}", "timeout_s: 2001-99-99")) == [
        "config-undefined-variable",
        "config-yaml-value",
    ]


def test_the_empty_text_of_a_variable_that_is_let_pass_is_judged_as_a_value() -> None:
    checked = check(one_plugin("priority: {{ env.NONE }}"), strict=False)
    assert [each.code for each in checked.faults] == ["config-type"]
    assert [each.code for each in checked.warnings] == ["config-undefined-variable"]


def test_environment_variables_come_from_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPEX_TEST_PRIORITY", "7")
    file = tmp_path / "c.yaml"
    file.write_text(one_plugin("priority: {{ env.CPEX_TEST_PRIORITY }}", "config: {t: 'Hello {{user}}'}"))
    (plugin,) = ConfigLoader.load_config(str(file)).plugins or []
    assert (plugin.priority, plugin.config) == (7, {"t": "Hello {{user}}"})


def test_templates_can_be_switched_off(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(one_plugin("config: {t: '{{ env.NONE }}'}"))
    (plugin,) = ConfigLoader.load_config(str(file), use_jinja=False).plugins or []
    assert plugin.config == {"t": "{{ env.NONE }}"}


def test_warnings_are_logged_once_per_load(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="cpex.framework.loader.config"):
        ConfigLoader.load_text("plugin_settings: {}\n" + GOOD, file="c.yaml")
    assert [record.getMessage() for record in caplog.records] == [
        "Configuration at c.yaml:1:1: `plugin_settings` has no effect [config-ignored-key]; remove it; see "
        "`plugin_timeout_s`, `hook_timeout_s` and the `on_error` of each plugin"
    ]


def test_a_loaded_configuration_knows_where_its_plugins_stand() -> None:
    loaded = ConfigLoader.load_text(GOOD + "  - {name: b, kind: x.B, hooks: [h]}\n", file="c.yaml")
    assert loaded.plugin_locations() == {"a": "c.yaml:2:5", "b": "c.yaml:5:5"}
    assert loaded.location("plugins", 1, "kind") == "c.yaml:5:21"


def test_the_digest_follows_the_meaning_and_not_the_text() -> None:
    first = ConfigLoader.load_text(GOOD).digest
    assert first.startswith("sha256:")
    assert len(first) == 71
    same = "# comment\nplugins: [{kind: x.A, name: a, hooks: ['tool_pre_invoke'], mode: sequential}]"
    assert ConfigLoader.load_text(same).digest == first
    assert ConfigLoader.load_text(one_plugin("priority: 1")).digest != first


def test_every_value_of_yaml_has_a_digest() -> None:
    text = one_plugin(
        "config: {a: 2001-01-01, b: !!set {x, y}, c: !!binary /w==, d: .nan, e: {1: 2, x: 3}, f: !!omap [a: 1], g: 'é'}"
    )
    assert config_digest(ConfigLoader.load_text(text).config) == config_digest(ConfigLoader.load_text(text).config)


def test_a_saved_configuration_is_read_back_as_it_was(tmp_path: Path) -> None:
    config = ConfigLoader.load_text(
        one_plugin("config: {t: '{{ x }} é', n: [1, null]}", "capabilities: [read_headers]")
    ).config
    file = tmp_path / "out.yaml"
    ConfigSaver.save_config(config, str(file))
    assert ConfigLoader.load_config(str(file)) == config
    assert yaml.safe_load(file.read_text(encoding="utf-8"))["plugins"][0]["mode"] == "sequential"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["out.yaml"]


def test_saving_keeps_the_permissions_and_the_link_of_an_existing_file(tmp_path: Path) -> None:
    file, link = tmp_path / "c.yaml", tmp_path / "link.yaml"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    ConfigSaver.save_config(Config(), link)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert ConfigLoader.load_config(file) == Config()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Error saving PluginConfig to .*none/c\.yaml"):
        ConfigSaver.save_config(Config(), tmp_path / "none" / "c.yaml")


def test_importing_the_loader_loads_no_yaml() -> None:
    code = "import sys, cpex.framework.loader.config, cpex.framework.loader.plugin; print('yaml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("value", ["[x]", "[{a: b}]", "{a: b}", "{1: [2]}", "5", "null", "true", "2020-01-01", '""'])
@pytest.mark.parametrize("begin", ["", "name: a, kind: b.C, ", "name: a, kind: external, hooks: [tool_pre_invoke], "])
def test_a_value_of_another_type_is_a_fault_or_none_and_never_a_crash(begin: str, value: str) -> None:
    for key in PluginConfig.model_fields:
        checked = check(f"plugins:\n  - {{{begin}{key}: {value}}}\n")
        assert checked.faults or checked.config is not None
        assert all(fault.line for fault in checked.faults)
