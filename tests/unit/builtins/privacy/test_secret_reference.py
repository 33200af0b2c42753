from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.framework import GlobalContext, PluginConfig, PluginContext, ToolPostInvokePayload

Configure = Callable[..., PluginConfig]
SECRET = "0123456789abcdef-the-secret"


async def hashed(config: PluginConfig) -> str:
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    payload = ToolPostInvokePayload(name="t", result="joe@example.com")
    result = await PIIRedactionPlugin(config).tool_post_invoke(payload, context)
    assert result.modified_payload is not None
    return str(result.modified_payload.result)


async def test_a_secret_is_itself_or_where_it_is(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "key").write_text(SECRET + "\n", encoding="utf-8")
    monkeypatch.setenv("PII_KEY", SECRET)
    references: list[Any] = [SECRET, {"env": "PII_KEY"}, {"file": str(tmp_path / "key")}]
    answers = {await hashed(configure(mode="hash", hash_key=reference)) for reference in references}
    assert len(answers) == 1
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"env": "PII_NO_SUCH"}, "the environment variable `PII_NO_SUCH` is not set or empty; set it before the start"),
        (
            {"file": "/no/such"},
            "the file `/no/such` cannot be read (FileNotFoundError); mount the secret there as UTF-8",
        ),
        ({"vault": "x"}, "a reference to a secret has one key: write {env: NAME} or {file: PATH}"),
        ("hunter2", "the secret is shorter than 16 characters; make one with `openssl rand -hex 32`"),
    ],
)
def test_what_is_wrong_with_a_reference_is_told_without_the_secret(
    configure: Configure, reference: Any, message: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        PIIRedactionPlugin(configure(mode="hash", hash_key=reference))
    assert message in str(raised.value)
    assert "hunter2" not in str(raised.value)
