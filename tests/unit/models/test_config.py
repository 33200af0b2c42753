"""What a plugin configuration accepts, refuses and hands out."""

import enum
import json
import threading

import pytest
from pydantic import ValidationError

from cpex.framework.models import AppliedTo, Config, OnError, PluginCondition, PluginConfig, PluginMode

FIELDS_OF_0_1 = [
    "name",
    "description",
    "author",
    "kind",
    "namespace",
    "version",
    "hooks",
    "tags",
    "mode",
    "on_error",
    "priority",
    "max_content_size",
    "conditions",
    "applied_to",
    "capabilities",
    "config",
    "mcp",
    "grpc",
    "unix_socket",
]


def plugin(**values):
    return PluginConfig(**{"name": "p", "kind": "pkg.Plugin", **values})


def refusal(**values):
    with pytest.raises(ValidationError) as caught:
        plugin(**values)
    return str(caught.value)


def test_defaults_are_a_sequential_plugin_that_fails_the_call_when_it_fails():
    config = plugin()

    assert (config.mode, config.on_error, config.priority) == (PluginMode.SEQUENTIAL, OnError.FAIL, 100)
    assert (config.hooks, config.tags, config.conditions, config.capabilities) == ([], [], [], frozenset())
    assert (config.timeout_s, config.initialize_timeout_s, config.disable_cooldown_s) == (None, 30.0, None)
    assert config.max_content_size == 10_000_000


def test_a_config_cannot_be_assigned_to():
    with pytest.raises(ValidationError, match="frozen"):
        plugin().name = "other"


def test_an_overlay_by_model_copy_checks_nothing():
    overlay = plugin().model_copy(update={"mode": PluginMode.AUDIT, "config": {"a": 1}, "on_error": OnError.IGNORE})

    assert (overlay.mode, overlay.config, overlay.on_error) == (PluginMode.AUDIT, {"a": 1}, OnError.IGNORE)


@pytest.mark.parametrize(
    ("word", "mode", "on_error"),
    [
        ("enforce", PluginMode.SEQUENTIAL, OnError.FAIL),
        ("permissive", PluginMode.TRANSFORM, OnError.FAIL),
        ("enforce_ignore_error", PluginMode.SEQUENTIAL, OnError.IGNORE),
    ],
)
def test_legacy_mode_words_keep_their_meaning(word, mode, on_error):
    config = plugin(mode=word)

    assert (config.mode, config.on_error) == (mode, on_error)


def test_on_error_that_is_written_wins_over_what_a_legacy_mode_implies():
    assert plugin(mode="enforce_ignore_error", on_error="disable").on_error is OnError.DISABLE


def test_legacy_mode_words_are_case_sensitive():
    assert "mode" in refusal(mode="ENFORCE")


def test_the_dict_that_a_config_is_validated_from_stays_as_it_was():
    data = {"name": "p", "kind": "k", "mode": "enforce_ignore_error", "capabilities": "read_headers"}
    before = dict(data)

    PluginConfig.model_validate(data)

    assert data == before


def test_hooks_given_as_enum_members_are_stored_as_plain_strings():
    class Hook(str, enum.Enum):
        PRE = "tool_pre_invoke"

    hooks = plugin(hooks=[Hook.PRE, "custom"]).hooks

    assert hooks == ["tool_pre_invoke", "custom"]
    assert {type(hook) for hook in hooks} == {str}


@pytest.mark.conformance("D6")
@pytest.mark.parametrize(
    "given", ["read_headers", ["read_headers"], ("read_headers",), {"read_headers"}, iter(["read_headers"])]
)
def test_capabilities_may_be_one_bare_name_or_any_iterable(given):
    assert plugin(capabilities=given).capabilities == frozenset({"read_headers"})


def test_capabilities_given_as_enum_members_are_stored_as_plain_strings():
    from cpex.framework.extensions.tiers import Capability

    stored = plugin(capabilities=list(Capability)).capabilities

    assert len(stored) == 12
    assert {type(name) for name in stored} == {str}


@pytest.mark.conformance("D17b")
def test_capabilities_for_credentials_are_known_although_no_extension_tier_has_them():
    names = {"read_inbound_credentials", "read_delegated_tokens"}

    assert plugin(capabilities=names).capabilities == names


def test_capabilities_are_dumped_as_a_sorted_list():
    config = plugin(capabilities=["read_roles", "read_agent"])

    assert config.model_dump()["capabilities"] == ["read_agent", "read_roles"]


def test_no_capabilities_at_all_may_be_written_as_null():
    assert plugin(capabilities=None).capabilities == frozenset()


def test_unknown_capabilities_are_all_named_beside_the_known_ones():
    text = refusal(capabilities=["read_agent", "raed_agent", 5])

    assert "Unknown capability `raed_agent`, `5`; known: `append_delegation`, " in text


@pytest.mark.parametrize("given", [{"read_headers": False}, 7, b"read_headers"])
def test_capabilities_that_are_no_list_of_names_are_refused(given):
    assert "capabilities must be a list of names" in refusal(capabilities=given)


@pytest.mark.parametrize(
    "values",
    [
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"initialize_timeout_s": -1},
        {"shutdown_timeout_s": 0},
        {"disable_cooldown_s": -1},
        {"max_content_size": 0},
        {"max_content_size": -1},
    ],
)
def test_times_and_sizes_must_be_usable(values):
    assert next(iter(values)) in refusal(**values)


@pytest.mark.parametrize(
    ("mcp", "fragment"),
    [
        ({"proto": "STDIO"}, "Plugin p has transport type STDIO, which needs 'script' or 'cmd'"),
        ({"proto": "STDIO", "script": "a.py", "cmd": ["a"]}, "Plugin p must set 'script' or 'cmd' for STDIO, not both"),
        ({"proto": "SSE"}, "Plugin p has transport type SSE, which needs 'url'"),
        ({"proto": "STREAMABLEHTTP", "url": ""}, "Plugin p has transport type STREAMABLEHTTP, which needs 'url'"),
        ({"proto": "HTTP", "url": "http://host/"}, "Plugin p must set transport type to"),
        ({"proto": "GRPC"}, "Plugin p must set transport type to"),
    ],
)
def test_an_mcp_section_needs_what_its_transport_needs(mcp, fragment):
    assert fragment in refusal(kind="external", mcp=mcp)


@pytest.mark.conformance("E21")
def test_an_external_plugin_that_nothing_can_speak_to_is_refused():
    sse = {"proto": "SSE", "url": "http://host/sse"}
    text = refusal(kind="external", mcp=sse)
    assert "External plugin p has transport type SSE, which no client speaks; write `proto: STREAMABLEHTTP`" in text
    assert PluginConfig(name="p", kind="a.B", mcp=sse).mcp is not None


def test_an_external_plugin_needs_exactly_one_transport():
    two = {"unix_socket": {"path": "/run/p.sock"}, "grpc": {"target": "host:1"}}

    assert "External plugin p must have 'mcp', 'grpc', or 'unix_socket'" in refusal(kind="external")
    assert "External plugin p can only have one transport configured" in refusal(kind="external", **two)


def test_an_external_plugin_has_its_settings_on_its_server():
    section = {"unix_socket": {"path": "/run/p.sock"}}

    assert "Plugin p is defined as 'external' with 'config' set" in refusal(kind="external", config={"a": 1}, **section)
    assert plugin(kind="external", config={}, **section).config == {}


def test_a_config_fetched_from_a_server_may_carry_its_settings():
    data = {"name": "p", "kind": "external", "config": {"a": 1}, "unix_socket": {"path": "/run/p.sock"}}

    fetched = PluginConfig.model_validate(data, context={"ignore_config_external": True})

    assert fetched.config == {"a": 1}


def test_a_transport_section_of_another_kind_is_accepted_and_means_nothing():
    assert plugin(mcp={"proto": "STDIO", "cmd": ["server"]}).mcp is not None


def test_json_forms_start_with_the_fields_of_0_1_in_their_order():
    config = plugin(capabilities=["read_agent"], conditions=[{"tools": ["t"]}])
    text = config.get_safe_config()

    assert list(json.loads(text))[: len(FIELDS_OF_0_1)] == FIELDS_OF_0_1
    assert json.loads(text) == config.to_json()
    assert ": " not in text
    assert PluginConfig.model_validate_json(text) == config


@pytest.mark.conformance("D10")
def test_a_private_copy_is_equal_and_shares_nothing_that_can_be_changed():
    config = plugin(
        config={"words": ["a", {"b": [1]}]},
        conditions=[{"tools": ["t"]}],
        hooks=["h"],
        tags=["x"],
        applied_to={"tools": [{"tool_name": "t"}]},
    )
    copied = config.private_copy()
    before = config.to_json()

    assert copied == config
    assert copied.model_fields_set == config.model_fields_set
    copied.config["words"][1]["b"].append(2)
    copied.conditions[0].tools.add("other")
    copied.hooks.append("other")
    copied.tags.clear()
    copied.applied_to.tools.clear()
    assert config.to_json() == before


def test_a_private_copy_keeps_references_inside_the_settings_and_shares_what_cannot_be_copied():
    lock = threading.Lock()
    inner = {"lock": lock}
    settings = {"first": inner, "second": inner, "set": {1}}
    settings["itself"] = settings
    copied = plugin().model_copy(update={"config": settings}).private_copy().config

    assert copied["first"] is copied["second"]
    assert copied["first"] is not inner
    assert copied["first"]["lock"] is lock
    assert copied["itself"] is copied
    assert copied["set"] is not settings["set"]


def test_conditions_normalise_content_types_and_dump_sets_as_sorted_lists():
    condition = PluginCondition(tools={"b", "a"}, prompts=set(), content_types=["Text/HTML; charset=x", " a/b "])

    assert condition.model_dump() == {
        "server_ids": None,
        "tenant_ids": None,
        "tools": ["a", "b"],
        "prompts": None,
        "resources": None,
        "agents": None,
        "user_patterns": None,
        "content_types": ["text/html", "a/b"],
    }


def test_templates_are_carried_for_plugins_to_read():
    applied = AppliedTo.model_validate(
        {"tools": [{"tool_name": "t", "fields": ["args.q"], "result": True}], "resources": [{"resource_uri": "u"}]}
    )

    assert applied.tools[0].result is True
    assert applied.resources[0].fields is None
    assert applied.prompts is None


def test_a_configuration_ignores_plugin_settings_and_unknown_keys():
    config = Config.model_validate({"plugins": None, "plugin_settings": {"plugin_timeout": 1}, "other": 1})

    assert config.plugins is None
    assert Config().plugins == []


def test_limits_of_a_configuration_have_defaults_and_are_checked():
    config = Config()

    assert (config.plugin_timeout_s, config.hook_timeout_s) == (None, None)
    assert (config.max_payload_bytes, config.background_limit, config.drain_timeout_s) == (1_000_000, 1000, 5.0)
    for limits in ({"hook_timeout_s": 0}, {"max_payload_bytes": 0}, {"background_limit": -1}, {"drain_timeout_s": -1}):
        with pytest.raises(ValidationError):
            Config(**limits)


def test_a_deep_copy_with_other_plugins_leaves_the_original_alone():
    config = Config(plugins=[plugin()], plugin_dirs=["a"])
    copied = config.model_copy(update={"plugins": []}, deep=True)

    copied.plugin_dirs.append("b")

    assert (len(config.plugins), config.plugin_dirs) == (1, ["a"])
