"""Where settings come from, when they are read, and how bad ones are reported."""

import os

import pytest
from pydantic import ValidationError

from cpex.framework import settings as module
from cpex.framework.settings import (
    PluginsSettings,
    PluginsStartupSettings,
    get_enabled_settings,
    get_http_client_settings,
    get_mcp_server_settings,
    get_settings,
    get_startup_settings,
    get_transport_settings,
    settings,
)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("PLUGINS_") or name.upper() == "UNIX_SOCKET_PATH":
            monkeypatch.delenv(name)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def variables(monkeypatch):
    def set_variables(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    return set_variables


def test_defaults_are_those_of_the_documentation():
    assert (settings.enabled, settings.config_file, settings.plugin_timeout) == (False, "plugins/config.yaml", 30)
    assert (settings.fail_on_plugin_error, settings.execution_pool) == (False, 10)
    assert (settings.default_hook_policy, settings.ssrf_protection_enabled) == ("allow", True)
    assert (settings.log_level, settings.strict_config, settings.cli_markup_mode) == ("INFO", True, None)
    assert get_http_client_settings().httpx_read_timeout == 120.0


def test_variables_are_found_in_any_case_and_the_regular_spelling_wins(variables):
    variables(plugins_plugin_timeout="5")
    assert settings.plugin_timeout == 5

    variables(PLUGINS_PLUGIN_TIMEOUT="6")
    assert settings.plugin_timeout == 6


def test_the_environment_wins_over_the_env_file_and_arguments_over_both(variables, tmp_path):
    (tmp_path / ".env").write_text("PLUGINS_EXECUTION_POOL=7\nexport PLUGINS_CONFIG_FILE='a b.yaml'\nOTHER=1\n")
    variables(PLUGINS_EXECUTION_POOL="8")

    assert (settings.execution_pool, settings.config_file) == (8, "a b.yaml")
    assert PluginsSettings(execution_pool=9).execution_pool == 9
    assert PluginsSettings(_env_file=None).config_file == "plugins/config.yaml"


def test_the_env_file_is_looked_for_where_the_process_is_when_settings_are_read(monkeypatch, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / ".env").write_text("PLUGINS_ENABLED=true # a note\n")
    monkeypatch.chdir(folder)

    assert settings.enabled is True


def test_settings_are_kept_until_they_are_forgotten(variables, monkeypatch):
    assert settings.plugin_timeout == 30
    monkeypatch.setenv("PLUGINS_PLUGIN_TIMEOUT", "5")
    assert settings.plugin_timeout == 30

    settings.cache_clear()

    assert settings.plugin_timeout == 5
    assert get_settings() is get_settings()


@pytest.mark.parametrize("text", ["1", "true", " YES ", "On"])
def test_words_that_enable(text, monkeypatch):
    monkeypatch.setenv("PLUGINS_ENABLED", text)

    assert settings.enabled is True


@pytest.mark.parametrize("text", ["", "0", "false", "t", "true # note", "enabled"])
def test_any_other_word_does_not_enable_and_is_looked_at_every_time(text, monkeypatch):
    monkeypatch.setenv("PLUGINS_ENABLED", "true")
    assert settings.enabled is True

    monkeypatch.setenv("PLUGINS_ENABLED", text)

    assert settings.enabled is False


def test_a_malformed_variable_stops_its_own_group_only_and_is_named(variables):
    variables(PLUGINS_EXECUTION_POOL="many")

    assert settings.default_hook_policy == "allow"
    for read in (lambda: settings.plugin_timeout, lambda: settings.server_host):
        with pytest.raises(ValidationError, match=r"PLUGINS_EXECUTION_POOL\n.*valid integer"):
            read()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EXECUTION_POOL", "-1"),
        ("PLUGIN_TIMEOUT", "1.5"),
        ("PLUGIN_TIMEOUT", "0"),
        ("DEFAULT_HOOK_POLICY", "DENY"),
        ("DEFAULT_HOOK_POLICY", ""),
        ("SERVER_PORT", "http"),
        ("CLI_MARKUP_MODE", "html"),
    ],
)
def test_values_that_cannot_be_meant_are_errors_when_they_are_read(name, text, variables):
    variables(**{f"PLUGINS_{name}": text})

    with pytest.raises(ValidationError, match=f"PLUGINS_{name}"):
        getattr(settings, name.lower())


def test_blank_numbers_and_switches_count_as_unset(variables):
    variables(
        PLUGINS_EXECUTION_POOL="",
        PLUGINS_FAIL_ON_PLUGIN_ERROR=" ",
        PLUGINS_SERVER_PORT="",
        PLUGINS_SERVER_SSL_ENABLED="",
        PLUGINS_SSRF_PROTECTION_ENABLED="",
        PLUGINS_STRICT_CONFIG="",
    )

    assert (settings.execution_pool, settings.fail_on_plugin_error, settings.server_port) == (10, False, None)
    assert (settings.server_ssl_enabled, settings.ssrf_protection_enabled, settings.strict_config) == (None, True, True)
    assert settings.fail_on_plugin_error_explicit is False


def test_an_empty_path_of_the_configuration_is_a_path():
    assert PluginsStartupSettings(config_file="").config_file == ""


def test_an_empty_path_in_the_environment_is_kept(variables):
    variables(PLUGINS_CONFIG_FILE="", PLUGINS_SERVER_HOST="")

    assert (settings.config_file, settings.server_host) == ("", "")


@pytest.mark.parametrize("text", ["true", "false"])
def test_it_is_known_whether_the_failure_rule_was_set(text, variables):
    assert get_startup_settings().fail_on_plugin_error_explicit is False

    variables(PLUGINS_FAIL_ON_PLUGIN_ERROR=text)

    assert get_startup_settings().fail_on_plugin_error_explicit is True
    assert get_settings().fail_on_plugin_error_explicit is True
    assert settings.fail_on_plugin_error is (text == "true")


def test_the_bare_socket_variable_wins_in_the_narrow_group_and_the_prefixed_one_in_the_full(variables):
    variables(UNIX_SOCKET_PATH="/bare")
    assert (settings.unix_socket_path, get_settings().unix_socket_path) == ("/bare", "/bare")

    variables(PLUGINS_UNIX_SOCKET_PATH="/prefixed")
    assert (settings.unix_socket_path, get_settings().unix_socket_path) == ("/bare", "/prefixed")
    assert get_transport_settings().unix_socket_path == "/bare"


def test_passwords_are_secrets(variables):
    variables(PLUGINS_SERVER_SSL_KEYFILE_PASSWORD="hunter2")

    assert "hunter2" not in repr(get_mcp_server_settings())
    assert get_mcp_server_settings().server_ssl_keyfile_password.get_secret_value() == "hunter2"


def test_unknown_settings_are_missing_attributes():
    with pytest.raises(AttributeError):
        settings.nonsense
    assert getattr(get_settings(), "some_host_key", None) is None


def test_every_setting_of_every_narrow_group_is_in_the_full_one():
    groups = {
        getter().__class__
        for name, getter in vars(module).items()
        if name.startswith("get_") and name.endswith("_settings")
    }
    fields = {field for group in groups for field in group.model_fields} - {"plugin_registry_file"}

    assert fields <= set(PluginsSettings.model_fields)
    assert len(groups - {PluginsSettings}) == 16
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_default_of_the_enabled_group_is_off(variables):
    variables(PLUGINS_ENABLED="")

    assert get_enabled_settings().enabled is False
