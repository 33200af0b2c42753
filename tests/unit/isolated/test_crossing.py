"""What crosses to a worker and back: credentials, extensions, results."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from pydantic import SecretStr
from support import of_ours

from cpex.framework.extensions import Extensions, HttpExtension, SecurityExtension
from cpex.framework.hooks.identity import DelegationPayload, IdentityPayload
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.isolated import worker
from cpex.framework.isolated.credentials import (
    CredentialError,
    credential_for,
    masked_headers,
    reconstruct_credential_payload,
    scrubbed,
    scrubbing,
    scrubbing_log_factory,
)
from cpex.framework.isolated.slots import (
    reconstruct_extensions,
    returned_extensions,
    sanitize_extensions_http,
    slots_for_worker,
)

TOKEN = "opaque-but-long-enough"
IDENTITY = IdentityPayload(raw_token=SecretStr(TOKEN), headers={"Authorization": f"Bearer {TOKEN}", "A": "1"})
MAY = frozenset({"read_inbound_credentials", "read_delegated_tokens"})


def test_a_credential_is_sent_to_who_may_have_it_and_to_nobody_else() -> None:
    expected = {"inbound": {"token": TOKEN, "source_header": "authorization", "kind": "opaque"}}
    assert credential_for("identity_resolve", IDENTITY, MAY) == expected
    assert credential_for("identity_resolve", IDENTITY, frozenset({"read_delegated_tokens"})) is None
    assert credential_for("tool_pre_invoke", IDENTITY, MAY) is None
    assert credential_for("identity_resolve", ToolPreInvokePayload(name="t"), MAY) is None
    delegation = DelegationPayload(target_name="t", bearer_token=SecretStr(TOKEN), target_audience="https://a")
    assert credential_for("token_delegate", delegation, MAY) == {"delegated": {"token": TOKEN, "audience": "https://a"}}
    assert credential_for("token_delegate", DelegationPayload(target_name="t"), MAY) is None
    assert credential_for("token_delegate", delegation, frozenset()) is None


def test_headers_of_a_payload_hold_no_credential_when_they_cross() -> None:
    headers = {"authorization": f"Bearer {TOKEN}", "Cookie": "session=1", "X-Copy": f"it is {TOKEN}", "A": "1"}
    payload = IDENTITY.model_copy(update={"headers": headers})
    assert masked_headers(payload).headers == {
        "authorization": "Bearer **********",
        "Cookie": "**********",
        "X-Copy": "it is **********",
        "A": "1",
    }
    assert payload.headers == headers
    plain = IDENTITY.model_copy(update={"headers": {"A": "1"}})
    assert masked_headers(plain) is plain


def test_a_rebuilt_payload_is_a_copy() -> None:
    masked = IDENTITY.model_copy(update={"raw_token": SecretStr("**********"), "headers": {}})
    rebuilt = reconstruct_credential_payload("identity_resolve", masked, {"inbound": {"token": TOKEN}})
    assert isinstance(rebuilt, IdentityPayload)
    assert (rebuilt.raw_token.get_secret_value(), masked.raw_token.get_secret_value()) == (TOKEN, "**********")
    assert reconstruct_credential_payload("tool_pre_invoke", masked, "nonsense") is masked
    with pytest.raises(CredentialError, match="does not match hook identity_resolve"):
        reconstruct_credential_payload(
            "identity_resolve", ToolPreInvokePayload(name="t"), {"inbound": {"token": TOKEN}}
        )


def test_a_token_is_found_in_the_forms_that_whole_texts_take() -> None:
    token = 'quoted"and/slashed+long'
    for text in (token, json.dumps(token), "quoted%22and%2Fslashed%2Blong", "cXVvdGVkImFuZC9zbGFzaGVkK2xvbmc="):
        assert "quoted" not in scrubbed(f"<{text}>", token)
        assert "cXVv" not in scrubbed(f"<{text}>", token)
    assert scrubbed("short words", "short") == "short words"


def test_log_records_lose_the_token_from_message_arguments_and_traceback() -> None:
    make = scrubbing_log_factory(TOKEN)
    try:
        raise ValueError(f"inner {TOKEN}")
    except ValueError:
        record = make("n", logging.INFO, "p", 1, "it is %s", (TOKEN,), sys.exc_info(), sinfo=f"stack {TOKEN}")
    assert TOKEN not in logging.Formatter().format(record)
    assert record.getMessage() == "it is **********"
    # Arguments that do not fit are no failure of the plugin's.
    assert make("n", logging.INFO, "p", 1, "%d", ("x",), None).getMessage() == "%d"


def test_calls_that_overlap_keep_both_tokens_out_and_restore_what_was_there() -> None:
    before = (logging.getLogRecordFactory(), sys.stdout, sys.stderr)
    one, other = scrubbing(TOKEN), scrubbing("another-long-token")
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    record = logging.getLogRecordFactory()("n", 20, "p", 1, "another-long-token", (), None)
    assert record.getMessage() == "**********"
    other.__exit__(None, None, None)
    assert (logging.getLogRecordFactory(), sys.stdout, sys.stderr) == before


SENSITIVE = {"AUTHORIZATION": "Bearer y", "Set-Cookie": "c", "cookie": "d", "X-Api-Key": "k"}
HTTP = HttpExtension(headers={"Accept": "x", **SENSITIVE})


@pytest.mark.conformance("V18")
def test_headers_that_hold_credentials_do_not_cross() -> None:
    sent = slots_for_worker(Extensions(http=HTTP, custom={"k": 1}))
    assert sent == {"http": {"headers": {"Accept": "x"}, "request_headers": {"Accept": "x"}}, "custom": {"k": 1}}
    without = Extensions(custom={})
    assert sanitize_extensions_http(without) is without


def test_one_map_of_headers_under_two_names_is_read_without_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is told once in a process, and another test may have been first.
    monkeypatch.setattr("cpex.framework.extensions.http._told", set())
    for sent in (slots_for_worker(Extensions(http=HTTP)), {"http": {"request_headers": {"Accept": "x"}}}):
        assert reconstruct_extensions(sent) == Extensions(http=HttpExtension(headers={"Accept": "x"}))
    assert of_ours(caplog.records) == []
    both = {"http": {"headers": {"A": "1"}, "request_headers": {"A": "2"}}}
    assert reconstruct_extensions(both) == Extensions(http=HttpExtension(headers={"A": "1"}))
    assert "no `request_headers`" in caplog.text


@pytest.mark.conformance("V18")
def test_headers_that_were_kept_back_are_put_back() -> None:
    shown = Extensions(http=HTTP, custom={"k": 1})
    returned = returned_extensions(
        shown, {"http": {"headers": {"Accept": "y", "Authorization": "forged"}}, "custom": None}
    )
    assert returned is not None
    assert returned.http is not None
    assert returned.http.headers == {"Accept": "y", **SENSITIVE}
    # A slot of null says nothing.
    assert returned.custom == {"k": 1}


@pytest.mark.parametrize("raw", [None, {}, {"http": None, "custom": None}, {"unknown": {}}, "text"])
def test_extensions_that_say_nothing_are_no_change(raw: Any) -> None:
    assert returned_extensions(Extensions(security=SecurityExtension()), raw) is None


def test_every_public_name_of_the_worker_is_there() -> None:
    for name in worker.__all__:
        assert getattr(worker, name) is not None
    assert {"authorization", "cookie", "set-cookie", "x-api-key"} == worker.SENSITIVE_HEADERS
    assert (worker.CREDENTIAL_FIELD, worker.EXTENSIONS_FIELD, worker.WORKER_PROTOCOL_VERSION) == (
        "credential",
        "extensions",
        1,
    )
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        worker.absent  # type: ignore[attr-defined]  # it is not there
    assert "python_version" in worker.get_environment_info()
