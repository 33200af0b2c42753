from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cpex.builtins.content import GUARDED_HOOKS
from cpex.builtins.security.secret_finder import SecretFinder, SecretRedaction
from cpex.builtins.security.secret_rules import NAMED, OPTIONAL_TYPES, known_types, secret_rules
from cpex.builtins.security.secrets import SecretsPlugin
from cpex.framework import (
    PluginConfig,
    PluginContext,
    PluginResult,
    ResourcePreFetchPayload,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.cmf.message import (
    Message,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.hooks.message import MessagePayload

Configure = Callable[..., PluginConfig]
BLOCK = "-----BEGIN {0}PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nxyz+/=\n-----END {0}PRIVATE KEY-----"

# Each is made up; some are put together here so that no scanner of repositories takes them for real.
SPECIMENS = {
    "anthropic_token": "sk-ant-api03-" + "Ab1_" * 20,
    "authorization": "Bearer " + "abcDEF123456." * 3,
    "aws_access_key": "AKIA" + "IOSFODNN7EXAMPLE",
    "azure_storage_account_access_key": "AccountKey=" + "Ab1+" * 21 + "Ab==",
    "basic_auth_credentials": "postgres://joe:hunter2@db/main",
    "databricks_token": "dapi" + "0a1b2c3d" * 4,
    "digitalocean_token": "dop_v1_" + "0a1b2c3d" * 8,
    "github_token": "ghp_" + "a1B2" * 9,
    "gitlab_token": "glpat-" + "a1B2" * 5,
    "google_api_key": "AIza" + "a1B2_" * 7,
    "hugging_face_token": "hf_" + "aB" * 17,
    "json_web_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dGVzdHNpZ25hdHVyZQ",
    "npm_tokens": "npm_" + "a1B2" * 9,
    "openai_token": "sk-proj-" + "a1B2" * 10,
    "private_key": BLOCK.format("RSA "),
    "sendgrid_api_key": "SG." + "a1B2c3D4e5F" * 2 + "." + "a1B2c3D4e5F6g7H8i9J0k" * 2 + "x",
    "slack_token": "xoxb-" + "123456789012-abcdefABCDEF",
    "stripe_access_key": "sk_live_" + "a1B2" * 6,
    "telegram_bot_token": "12345678:" + "a1B2c" * 7,
    "twilio_api_key": "SK" + "0a1b2c3d" * 4,
}


@pytest.fixture(scope="module")
def finder() -> SecretFinder:
    rules = secret_rules()
    return SecretFinder(rules, {rule.type for rule in rules} - OPTIONAL_TYPES | {NAMED})


def redacted(finder: SecretFinder, text: str, key: str = "") -> str:
    return SecretRedaction(finder).text(text, key)


@pytest.mark.parametrize("type_", SPECIMENS)
def test_each_kind_is_found_in_running_text_and_taken_out_whole(finder: SecretFinder, type_: str) -> None:
    redaction = SecretRedaction(finder)
    text = redaction.text(f"Use this: {SPECIMENS[type_]} and nothing else.", "note")
    assert set(redaction.counts) == {type_}
    around = {"basic_auth_credentials": "postgres://joe:{}@db/main", "authorization": "Bearer {}"}.get(type_, "{}")
    assert text == f"Use this: {around.format(f'[{type_.upper()}-REDACTED]')} and nothing else."


def test_a_private_key_that_was_cut_off_is_taken_out_to_its_end(finder: SecretFinder) -> None:
    for length in range(28, len(BLOCK.format("")) + 1):
        assert redacted(finder, BLOCK.format("")[:length]).startswith("[PRIVATE_KEY-REDACTED]")
        assert "MII" not in redacted(finder, BLOCK.format("")[:length])
    encrypted = BLOCK.format("RSA ").replace("MII", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\nMII")
    assert redacted(finder, f"a {encrypted} b") == "a [PRIVATE_KEY-REDACTED] b"


@pytest.mark.parametrize(
    "text",
    [
        "The password: please reset it, the token count is 4096",
        "api_key: required, secret = undefined, password=${DB_PASSWORD}",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b on 2024-05-20",
        "550e8400-e29b-41d4-a716-446655440000",
        "https://example.com/a:b@c?d=e APARTMENTS SKELETON eyJust.a.word",
        "password: [NAMED_VALUE-REDACTED]",
        "sk-learn, hf_hub, npm_config, AKIA",
    ],
)
def test_everyday_text_passes(finder: SecretFinder, text: str) -> None:
    assert redacted(finder, text) is text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"db_password": "hunter2!x"}', '{"db_password": "[NAMED_VALUE-REDACTED]"}'),
        ("export API_KEY=abc123def", "export API_KEY=[NAMED_VALUE-REDACTED]"),
        ("client_secret: s3cr3t-value\n", "client_secret: [NAMED_VALUE-REDACTED]\n"),
    ],
)
def test_values_that_are_called_secrets_are_found_in_text(finder: SecretFinder, text: str, expected: str) -> None:
    assert redacted(finder, text) == expected


def test_a_value_under_a_telling_key_is_a_secret_whatever_it_looks_like(finder: SecretFinder) -> None:
    verdicts = {
        key: redacted(finder, "plain words", key) != "plain words"
        for key in ("password", "dbPassword", "client_secret", "X-Api-Key", "refresh_token", "page_token", "secretary")
    }
    assert [key for key, verdict in verdicts.items() if not verdict] == ["page_token", "secretary"]
    assert [redacted(finder, text, "password") for text in ("", "***", "None", "<password>", "${PW}")] == [
        *("", "***", "None", "<password>", "${PW}")
    ]


def test_random_tokens_are_found_only_when_asked_for(configure: Configure) -> None:
    token = "q7Xv9LmZ2pRt5WkY8sNb3HcF6dGj1aQe"
    (off, on) = (SecretsPlugin(configure(high_entropy=state))._finder for state in (False, True))
    assert redacted(off, token) == token
    assert redacted(on, f"it is {token}, or {'a' * 40}") == f"it is [HIGH_ENTROPY-REDACTED], or {'a' * 40}"


async def test_secrets_are_redacted_at_any_depth_in_both_directions(
    configure: Configure, context: PluginContext
) -> None:
    plugin = SecretsPlugin(configure())
    key = SPECIMENS["aws_access_key"]
    args = {"env": [{"AWS": key}, {key: 1}], "login": {"password": "hunter2"}, "q": "weather"}
    before = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="t", args=args), context)
    assert before.modified_payload is not None
    assert before.modified_payload.args == {
        "env": [{"AWS": "[AWS_ACCESS_KEY-REDACTED]"}, {"[AWS_ACCESS_KEY-REDACTED]": 1}],
        "login": {"password": "[NAMED_VALUE-REDACTED]"},
        "q": "weather",
    }
    assert before.metadata == {"guard": {"secrets": {"aws_access_key": 2, "named_value": 1}}}
    assert args["login"] == {"password": "hunter2"}, "the host keeps its own"
    after = await plugin.tool_post_invoke(ToolPostInvokePayload(name="t", result=f"key {key}".encode()), context)
    assert after.modified_payload is not None
    assert after.modified_payload.result == b"key [AWS_ACCESS_KEY-REDACTED]"
    again = await plugin.tool_pre_invoke(before.modified_payload, context)
    assert (again.modified_payload, again.metadata) == (None, {}), "redacting twice is redacting once"


async def test_messages_are_redacted_where_they_say_something_and_keep_their_names(
    configure: Configure, context: PluginContext
) -> None:
    plugin = SecretsPlugin(configure())
    key = SPECIMENS["github_token"]
    parts = [
        TextContent(text=f"my token is {key}"),
        ToolCallContentPart(content=ToolCall(tool_call_id=key, name=key, arguments={"token": [key]})),
        ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="t", content={"password": "hunter2"})),
    ]
    payload = MessagePayload(message=Message(role=Role.USER, content=parts))
    result: PluginResult[Any] = await getattr(plugin, "cmf.llm_input")(payload, context)
    assert result.modified_payload is not None
    text, call, answer = result.modified_payload.message.content
    assert text.text == "my token is [GITHUB_TOKEN-REDACTED]"
    assert call.content.arguments == {"token": ["[GITHUB_TOKEN-REDACTED]"]}
    assert (call.content.name, call.content.tool_call_id) == (key, key), "a changed name would call something else"
    assert answer.content.content == {"password": "[NAMED_VALUE-REDACTED]"}
    assert payload.message.content[0] is parts[0]


async def test_blocking_denies_with_counts_and_looks_at_addresses_and_names_too(
    configure: Configure, context: PluginContext
) -> None:
    plugin = SecretsPlugin(configure(action="block"))
    payload = ResourcePreFetchPayload(uri="https://joe:hunter2@example.com/x")
    result = await plugin.resource_pre_fetch(payload, context)
    assert result.violation is not None
    assert (result.violation.code, result.violation.details) == (
        "SECRET_DETECTED",
        {"secrets": {"basic_auth_credentials": 1}},
    )
    assert "hunter2" not in result.model_dump_json()
    call = ToolCallContentPart(content=ToolCall(tool_call_id="1", name=SPECIMENS["github_token"]))
    message = MessagePayload(message=Message(role=Role.ASSISTANT, content=[call]))
    assert not (await plugin.evaluate(message, context)).continue_processing
    redacting = SecretsPlugin(configure())
    assert (await redacting.resource_pre_fetch(payload, context)).modified_payload is None


async def test_findings_can_be_allowed_and_keys_exempted(configure: Configure, context: PluginContext) -> None:
    plugin = SecretsPlugin(configure(allow=["akia*EXAMPLE"], exempt_keys=["db_*"], types=["aws_access_key"]))
    args = {"a": SPECIMENS["aws_access_key"], "db_password": "hunter2", "c": SPECIMENS["github_token"]}
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="t", args=args), context)
    assert result.modified_payload is None
    plugin = SecretsPlugin(configure(named_values=False))
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="t", args={"password": "hunter2"}), context)
    assert result.modified_payload is None


def test_every_hook_with_content_is_covered(configure: Configure) -> None:
    plugin = SecretsPlugin(configure())
    assert [hook for hook in GUARDED_HOOKS if not hasattr(plugin, hook)] == []


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 100_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
        "password=" * 30_000,
        "://" + "a:" * 150_000,
        "xoxb-" + "1-" * 150_000,
        "//" + "/:_authToken= " * 20_000,
        "\u00e9" * 150_000,
    ],
)
@pytest.mark.timeout(60)
def test_no_text_stalls_the_search(finder: SecretFinder, text: str) -> None:
    finder.find(text)


def test_every_pattern_of_the_library_runs_in_linear_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = [rule.type for rule in secret_rules()]
    assert caplog.records == []
    assert set(known_types()) <= set(found)


def test_the_translation_finds_all_that_the_library_finds(finder: SecretFinder) -> None:
    for patterns in known_types().values():
        for pattern in patterns:
            for specimen in SPECIMENS.values():
                for match in re.finditer(pattern, specimen):
                    found = finder.find(specimen)
                    assert found, (pattern.pattern, match.group())


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60), secret=st.sampled_from(sorted(SPECIMENS)))
def test_a_secret_between_any_texts_never_survives(text: str, secret: str) -> None:
    rules = FINDERS.setdefault("all", SecretFinder(secret_rules(), {rule.type for rule in secret_rules()}))
    token = SPECIMENS[secret]
    if secret == "basic_auth_credentials":
        token = "hunter2"
    assert token not in redacted(rules, f"{text} {SPECIMENS[secret]} {text}")


FINDERS: dict[str, SecretFinder] = {}


def test_any_text_can_be_redacted(finder: SecretFinder) -> None:
    for text in ("", "\ud800 " + SPECIMENS["aws_access_key"], "\x00" * 10, "\U000e0041" * 5):
        assert SPECIMENS["aws_access_key"] not in redacted(finder, text)


def test_without_the_library_the_message_names_the_extra() -> None:
    # A module that is `None` in `sys.modules` is one that cannot be imported; a fresh interpreter spares the others.
    code = (
        "import sys; sys.modules['detect_secrets'] = None\n"
        "from cpex.builtins.security.secret_rules import secret_rules\n"
        "try: secret_rules()\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == (
        "looking for secrets needs the library `detect-secrets`; install it with `pip install 'cpex[secrets]'`\n"
    )


def test_settings_that_make_no_sense_stop_the_start(configure: Configure) -> None:
    with pytest.raises(ValidationError, match="action"):
        SecretsPlugin(configure(action="shred"))
    with pytest.raises(ValueError, match=r"no secrets are of the types \['pin'\]; known: anthropic_token, "):
        SecretsPlugin(configure(types=["pin"]))
    with pytest.raises(ValidationError, match="nothing is looked for; name `types`, or take the plugin out"):
        SecretsPlugin(configure(types=[], named_values=False))
    SecretsPlugin(configure(types=[]))
