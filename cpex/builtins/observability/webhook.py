"""Records of hook calls, posted to an HTTP endpoint in batches."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import ssl
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, HttpUrl, SecretStr, TypeAdapter, ValidationError, field_validator, model_validator

from cpex.builtins.observability._delivery import SinkSettings, Undeliverable, Unreachable
from cpex.builtins.observability._facts import bare_uri
from cpex.builtins.observability._inherited import begin_anew_in_children, keep
from cpex.builtins.observability._sink import Sink
from cpex.framework import PluginConfig, PluginError, PluginErrorModel, clock

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

__all__ = ["WebhookPlugin", "WebhookSettings"]

_TRY_AGAIN = frozenset({408, 425, 429})
"""Refusals that say nothing about the request itself; so does every status from 500 on."""
_MAX_ANSWER_BYTES = 65_536
_MIN_SECRET_BYTES = 24
_SECRET_PREFIX = "whsec_"
_OWN_HEADERS = frozenset({"content-type", "content-length", "webhook-id", "webhook-timestamp", "webhook-signature"})
_posting = ContextVar("_posting", default=False)


class _WithoutAddresses(logging.Filter):
    """Stops what the HTTP client logs of requests of ours; those of other users of the library pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _posting.get()


# SECURITY: the library logs the whole address of each request, with its token.
_WITHOUT_ADDRESSES = _WithoutAddresses()


# SECURITY: an error about one setting would otherwise quote it, or the secrets beside it.
class WebhookSettings(SinkSettings, hide_input_in_errors=True):
    """Settings of the webhook."""

    url: SecretStr
    """Where to post, `https://…` or `http://…`. A secret, because such addresses often hold a token."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Sent with every request, for instance `Authorization`."""
    secret: SecretStr | None = None
    """Signs every request as the Standard Webhooks specification says: `whsec_` and base64 of 24 bytes or more."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Seconds that one request may take, from connecting to the end of the answer."""
    ca_file: Path | None = None
    """PEM file of the authorities that are trusted, instead of the system's."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        try:
            TypeAdapter(HttpUrl).validate_python(url.get_secret_value())
        except ValidationError:
            raise ValueError("this is no http:// or https:// address") from None
        return url

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            _signing_key(secret)
        return secret

    @model_validator(mode="after")
    def _check_headers(self) -> Self:
        taken = sorted(name for name in self.headers if name.lower() in _OWN_HEADERS)
        if taken:
            raise ValueError(f"the header `{taken[0]}` is the sink's own")
        return self


def _signing_key(secret: SecretStr) -> bytes:
    """The bytes of a secret in the form of the specification.

    Raises:
        ValueError: It has another form, or is too short.
    """
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:
        key = b""
    if len(key) < _MIN_SECRET_BYTES:
        raise ValueError(
            f"a secret is `{_SECRET_PREFIX}` and base64 of {_MIN_SECRET_BYTES} bytes or more; "
            f'`echo "{_SECRET_PREFIX}$(openssl rand -base64 32)"` makes one'
        )
    return key


class WebhookPlugin(Sink):
    """Posts a JSON document of records, `{"v": 1, "events": [record, …]}`, for every batch.

    A batch keeps its `webhook-id` over all attempts, so that a receiver can tell a repetition.

    Source: docs/plugins/webhook.md; Standard Webhooks 1.0, "Webhook scheme".
    """

    settings_model = WebhookSettings

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings; nothing is connected yet.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        self._settings = WebhookSettings.model_validate(config.config or {})
        super().__init__(config, self._settings)
        secret = self._settings.secret
        self._key = _signing_key(secret) if secret is not None else None
        self._shown_url = bare_uri(self._settings.url.get_secret_value())
        self._connect: Callable[[], AsyncClient] | None = None
        """Makes a client; `None` when the sink is not open."""
        self._client: AsyncClient | None = None
        self._ids: tuple[list[bytes] | None, str] = (None, "")
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a forked child: leave the connections to the parent, which goes on using them."""
        if self._client is not None:
            keep(self._client)
            self._client = None

    async def initialize(self) -> None:
        """Make the HTTP client; it connects with the first batch. Does nothing the second time.

        Raises:
            PluginError: `ca_file` cannot be used; code `sink_unavailable`.
        """
        if self._connect is not None:
            return
        # Loaded by those who have somebody to send to.
        from httpx2 import AsyncClient, Timeout

        logging.getLogger("httpx2").addFilter(_WITHOUT_ADDRESSES)
        headers = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        try:
            verify = ssl.create_default_context(cafile=self._settings.ca_file) if self._settings.ca_file else True
        except OSError as error:
            raise self._unavailable(f"`{self._settings.ca_file}` cannot be used: {error.strerror or error}") from error
        timeout = Timeout(self._settings.timeout_s)
        self._connect = partial(AsyncClient, headers=headers, timeout=timeout, verify=verify, follow_redirects=False)
        self._client = self._connect()
        self.delivery.start()

    async def shutdown(self) -> None:
        """Post what waits, for `drain_s` seconds at most, and close the connections. Does nothing the second time."""
        try:
            await super().shutdown()
        finally:
            client, self._client, self._connect = self._client, None, None
            if client is not None:
                await client.aclose()

    async def _send(self, records: list[bytes]) -> None:
        from httpx2 import HTTPError

        if self._connect is None:
            raise Undeliverable("the sink is not open; initialize the plugin first")
        if self._client is None:
            self._client = self._connect()
        body = b'{"v":1,"events":[' + b",".join(record.rstrip(b"\n") for record in records) + b"]}"
        headers = {"content-type": "application/json"} | self._signed(self._id_of(records), body)
        url = self._settings.url.get_secret_value()
        token = _posting.set(True)
        try:
            # The client's own timeout is for each step; a receiver that drips bytes would never meet it.
            async with (
                asyncio.timeout(self._settings.timeout_s),
                self._client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                self._judge(answer)
                await _read_a_little(answer)
        except (HTTPError, TimeoutError) as error:
            # SECURITY: the library's own text may hold the address.
            raise Unreachable(f"`{self._shown_url}` cannot be reached ({type(error).__name__})") from None
        finally:
            _posting.reset(token)

    def _id_of(self, records: list[bytes]) -> str:
        """One id for all attempts of a batch."""
        if self._ids[0] is not records:
            self._ids = (records, f"msg_{uuid.uuid4().hex}")
        return self._ids[1]

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        stamp = str(int(clock.now().timestamp()))
        headers = {"webhook-id": message_id, "webhook-timestamp": stamp}
        if self._key is not None:
            signed = f"{message_id}.{stamp}.".encode() + body
            signature = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
            headers["webhook-signature"] = f"v1,{signature}"
        return headers

    def _judge(self, answer: Response) -> None:
        status = answer.status_code
        if 200 <= status < 300:
            return
        why = f"`{self._shown_url}` answered with status {status}"
        if status >= 500 or status in _TRY_AGAIN:
            raise Unreachable(why, after_s=_retry_after_s(answer.headers.get("retry-after")))
        raise Undeliverable(why + (" (redirects are not followed)" if 300 <= status < 400 else ""))

    def _unavailable(self, message: str) -> PluginError:
        return PluginError(PluginErrorModel(message=message, plugin_name=self.name, code="sink_unavailable"))


async def _read_a_little(answer: Response) -> None:
    """Read a short answer to its end, so that its connection can be used again; a long one costs the connection."""
    size = 0
    async for chunk in answer.aiter_raw():
        size += len(chunk)
        if size > _MAX_ANSWER_BYTES:
            return


def _retry_after_s(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for.

    Source: RFC 9110, section 10.2.3.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - clock.now()).total_seconds())
    # Not a date, or one without a time zone.
    except (TypeError, ValueError):
        return None
