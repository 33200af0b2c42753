"""Credentials of the request on their way to the two hooks that are about them, and out of everything else.

A token never stands in a payload that crosses: there is a mask in its place. A plugin that may have it gets it beside
the payload, and the worker puts it in. While the hook runs, the token is replaced in what the plugin logs, prints and
raises; a result that holds it is not sent.

Source: docs/isolated.md, "Credentials".
"""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO
from urllib.parse import quote

from pydantic import SecretStr

from cpex.framework.hooks.identity import DelegationPayload, IdentityPayload
from cpex.framework.models.payload import PluginPayload

__all__ = [
    "CREDENTIAL_FIELD",
    "CREDENTIAL_HOOKS",
    "MIN_SCRUBBABLE_TOKEN_LENGTH",
    "REDACTED_HEADER_VALUE",
    "SENSITIVE_HEADERS",
    "CredentialError",
    "credential_for",
    "delivered_token",
    "masked_headers",
    "reconstruct_credential_payload",
    "scrubbed",
    "scrubbing",
    "scrubbing_log_factory",
]

CREDENTIAL_FIELD = "credential"
IDENTITY_RESOLVE = "identity_resolve"
TOKEN_DELEGATE = "token_delegate"
CREDENTIAL_HOOKS = frozenset({IDENTITY_RESOLVE, TOKEN_DELEGATE})
"""The hooks whose plugins may be given a credential."""
REDACTED_HEADER_VALUE = "**********"
"""What stands where a credential stood."""
SENSITIVE_HEADERS = frozenset({"authorization", "cookie", "set-cookie", "x-api-key"})
"""Headers that do not cross, in either direction; in lower case."""
MIN_SCRUBBABLE_TOKEN_LENGTH = 12
"""Characters; anything shorter would be found in ordinary words."""
_NEEDS = {IDENTITY_RESOLVE: "read_inbound_credentials", TOKEN_DELEGATE: "read_delegated_tokens"}
"""Hook -> the capability that lets a plugin have the credential."""
_PARTS = {IDENTITY_RESOLVE: "inbound", TOKEN_DELEGATE: "delegated"}
_BEARER_KINDS = frozenset({"jwt", "opaque", "spiffe_jwt", "ucan"})


class CredentialError(Exception):
    """A credential that was sent along cannot be put into the payload. The text never holds any of it."""


# The host's side.


def credential_for(hook: str, payload: Any, capabilities: frozenset[str]) -> dict[str, Any] | None:
    """What to send beside a payload: `{"inbound": {...}}` or `{"delegated": {...}}`.

    `None` when the hook is about no credential, the payload has none, or the plugin may not have it.
    """
    if _NEEDS.get(hook) not in capabilities:
        return None
    if hook == IDENTITY_RESOLVE and isinstance(payload, IdentityPayload):
        token = payload.raw_token.get_secret_value()
        name = next((name for name, value in payload.headers.items() if token and token in value), "authorization")
        return {"inbound": {"token": token, "source_header": name.lower(), "kind": _kind_of(token)}} if token else None
    if hook == TOKEN_DELEGATE and isinstance(payload, DelegationPayload) and payload.bearer_token is not None:
        token = payload.bearer_token.get_secret_value()
        audience = {"audience": payload.target_audience} if payload.target_audience is not None else {}
        return {"delegated": {"token": token, **audience}} if token else None
    return None


def _kind_of(token: str) -> str:
    return "jwt" if token.count(".") == 2 and token.startswith("ey") else "opaque"


def masked_headers(payload: Any) -> Any:
    """A payload whose headers hold no credential; the payload itself when it has none."""
    if not isinstance(payload, IdentityPayload) or not payload.headers:
        return payload
    token = payload.raw_token.get_secret_value()
    headers = {
        name: _masked(value, token) if name.lower() in SENSITIVE_HEADERS else _without(value, token)
        for name, value in payload.headers.items()
    }
    return payload if headers == payload.headers else payload.model_copy(update={"headers": headers})


def _masked(value: str, token: str) -> str:
    """The mask behind the scheme, as in `Bearer **********`; everything, when the token is not what is in it."""
    replaced = _without(value, token)
    return replaced if replaced != value else REDACTED_HEADER_VALUE


def _without(text: str, token: str) -> str:
    return text.replace(token, REDACTED_HEADER_VALUE) if token else text


# The worker's side.


def delivered_token(hook: str, credential: Any) -> str:
    """The token of a credential that was sent along.

    Raises:
        CredentialError: It is not of the agreed form.
    """
    if not isinstance(credential, Mapping):
        raise CredentialError("the credential is not an object")
    part = _PARTS[hook]
    inner = credential.get(part)
    if not isinstance(inner, Mapping):
        raise CredentialError(f"`{part}` of the credential is missing or not an object")
    token = inner.get("token")
    if not isinstance(token, str) or not token.strip():
        raise CredentialError(f"the token of `{part}` is missing or empty")
    return token


def reconstruct_credential_payload(hook_type: str, payload: PluginPayload, credential: object) -> PluginPayload:
    """Put a credential that was sent along into a copy of the payload.

    Raises:
        CredentialError: The credential is not of the agreed form, or the payload is not the hook's.
    """
    if hook_type not in CREDENTIAL_HOOKS:
        return payload
    token = delivered_token(hook_type, credential)
    assert isinstance(credential, Mapping)  # a token was found in it
    inner = credential[_PARTS[hook_type]]
    if hook_type == TOKEN_DELEGATE:
        if not isinstance(payload, DelegationPayload):
            raise CredentialError(f"the payload does not match hook {hook_type}")
        return payload.model_copy(update={"bearer_token": SecretStr(token)})
    if not isinstance(payload, IdentityPayload):
        raise CredentialError(f"the payload does not match hook {hook_type}")
    update: dict[str, Any] = {"raw_token": SecretStr(token), "headers": _headers(payload, inner, token)}
    if payload.source in ("", "bearer"):
        update["source"] = "bearer" if str(inner.get("kind", "")).lower() in _BEARER_KINDS else "custom"
    return payload.model_copy(update=update)


def _headers(payload: IdentityPayload, inner: Mapping[str, Any], token: str) -> dict[str, str]:
    sent, name = inner.get("headers"), inner.get("source_header")
    headers: Mapping[str, Any] = sent if isinstance(sent, Mapping) and sent else payload.headers
    if not headers and isinstance(name, str) and name:
        headers = {name: REDACTED_HEADER_VALUE}
    return {_without(str(key), token): _without(_as_text(value), token) for key, value in headers.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def forms_of(token: str) -> tuple[str, ...]:
    """A token and what it looks like when it is quoted, escaped or encoded whole; the longest first."""
    coded = token.encode("utf-8", "surrogatepass")
    forms = {token, quote(coded, safe=""), json.dumps(token)[1:-1], repr(token)[1:-1]}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        forms.add(encode(coded).decode("ascii").rstrip("="))
    return tuple(sorted(forms, key=len, reverse=True))


def scrubbed(text: str, token: str) -> str:
    """A text with the mask in place of the token; as it is when the token is too short to be looked for."""
    if len(token) >= MIN_SCRUBBABLE_TOKEN_LENGTH:
        for form in forms_of(token):
            text = text.replace(form, REDACTED_HEADER_VALUE)
    return text


def scrubbing_log_factory(token: str) -> Callable[..., logging.LogRecord]:
    """A factory of log records, for `logging.setLogRecordFactory`, that keeps a token out of them."""
    return _factory(logging.getLogRecordFactory(), lambda text: scrubbed(text, token))


def _factory(former: Callable[..., logging.LogRecord], scrub: Callable[[str], str]) -> Callable[..., logging.LogRecord]:
    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = former(*args, **kwargs)
        try:
            message = record.getMessage()
        # Arguments that do not fit their text; the text alone is logged then.
        except Exception:
            message = str(record.msg)
        record.msg, record.args = scrub(message), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = scrub("".join(traceback.format_exception(*record.exc_info)).rstrip())
            record.exc_info = None
        if record.stack_info:
            record.stack_info = scrub(record.stack_info)
        return record

    return make


_active: Counter[str] = Counter()
"""Tokens of the calls that are running. Calls may overlap, so there is one table and not one replacement per call."""


def _scrub_active(text: str) -> str:
    for token in list(_active):
        text = scrubbed(text, token)
    return text


class _Stream(io.TextIOBase):
    """Hands text on, line by line, without the active tokens."""

    def __init__(self, note: str, sink: TextIO) -> None:
        self._note = note
        self._sink = sink
        self._held = ""

    def write(self, text: str) -> int:
        """Take text; whole lines go on."""
        *lines, self._held = (self._held + text).split("\n")
        for line in lines:
            self._sink.write(f"{self._note}{_scrub_active(line)}\n")
        return len(text)

    def finish(self) -> None:
        """Hand on what has no end of line yet."""
        if self._held:
            self.write("\n")
        self._sink.flush()

    def writable(self) -> bool:
        """It is."""
        return True


_outer: list[Any] = []
"""What stood in place before the first active token: factory, standard output, standard error."""


@contextmanager
def scrubbing(token: str) -> Iterator[None]:
    """Keep a token out of log records and of what is printed, for the whole process, while the block runs."""
    if len(token) < MIN_SCRUBBABLE_TOKEN_LENGTH:
        yield
        return
    if not _active:
        _outer[:] = [logging.getLogRecordFactory(), sys.stdout, sys.stderr]
        logging.setLogRecordFactory(_factory(_outer[0], _scrub_active))
        sys.stdout = _Stream("[printed by the plugin] ", _outer[2])
        sys.stderr = _Stream("", _outer[2])
    _active[token] += 1
    try:
        yield
    finally:
        if _active.total() == 1:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, _Stream):
                    stream.finish()
            factory, sys.stdout, sys.stderr = _outer
            logging.setLogRecordFactory(factory)
        _active[token] -= 1
        # Zero counts are taken out.
        _active.__iadd__(Counter())
