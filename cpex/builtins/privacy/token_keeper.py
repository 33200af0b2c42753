"""Where the tokens of a request wait for its way back.

Without a store they are in the plugin's own state, which the host carries from the hook before to the hook after, and
which dies with the request. With one, any worker can take them back: they lie there sealed, under a digest of the
request's id, for a limited time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import secrets
from typing import Protocol

from cpex.builtins.privacy.tokens import TokenTable
from cpex.builtins.store.guarded import GuardedStore, store_key
from cpex.builtins.store.port import Store
from cpex.framework import PluginContext, clock

__all__ = ["StateKeeper", "StoreAwayError", "StoreKeeper", "TokenKeeper"]

logger = logging.getLogger(__name__)

_STATE = "pii_tokens"
_MAX_TRIES = 20


class StoreAwayError(Exception):
    """The store did not answer."""


class TokenKeeper(Protocol):
    """Keeps tokens from the hook before to the hook after. It does not know what they are made of."""

    async def load(self, context: PluginContext) -> TokenTable:
        """The tokens of a request so far."""

    async def keep(self, context: PluginContext, table: TokenTable) -> None:
        """Keep what is new."""

    async def close(self) -> None:
        """Give back what is held."""


class StateKeeper:
    """Keeps tokens in the plugin's state."""

    def __init__(self, max_tokens: int) -> None:
        """Bound the tokens of one request."""
        self._max_tokens = max_tokens

    async def load(self, context: PluginContext) -> TokenTable:
        """The tokens of a request so far."""
        kept = context.get_state(_STATE) or {"key": secrets.token_hex(16), "values": {}}
        return TokenTable(kept["key"], dict(kept["values"]), self._max_tokens)

    async def keep(self, context: PluginContext, table: TokenTable) -> None:
        """Keep what is new."""
        context.set_state(_STATE, {"key": table.key, "values": table.values})

    async def close(self) -> None:
        """Nothing is held."""


class StoreKeeper:
    """Keeps tokens in a store, sealed with Fernet (AES-128 in CBC mode with HMAC-SHA-256)."""

    def __init__(self, plugin: str, store: GuardedStore, secret: str, *, max_tokens: int, ttl_s: float) -> None:
        """Derive the keys.

        Raises:
            ModuleNotFoundError: The library is not installed; the message names the extra.
        """
        try:
            from cryptography.fernet import Fernet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "tokens in a store are sealed with `cryptography`, which is not installed; run `pip install cpex[pii]`",
                name=error.name,
            ) from error
        self._plugin = plugin
        self._store = store
        self._secret = secret.encode()
        self._fernet = Fernet(base64.urlsafe_b64encode(self._derive("seal")))
        self._max_tokens = max_tokens
        self._ttl_s = ttl_s

    def _derive(self, *purpose: str | None) -> bytes:
        return hmac.new(self._secret, json.dumps(purpose).encode(), hashlib.sha256).digest()

    def _place(self, context: PluginContext) -> tuple[str | None, ...]:
        # SECURITY: with its tenant, as the ids of requests are for the host to choose.
        shared = context.global_context
        return ("pii_tokens", self._plugin, shared.tenant_id, shared.request_id)

    async def load(self, context: PluginContext) -> TokenTable:
        """The tokens of a request so far.

        Raises:
            StoreAwayError: The store cannot be asked.
        """
        place = self._place(context)
        now_s = clock.now().timestamp()

        async def read(store: Store) -> dict[str, str | int]:
            return self._open(await store.get(store_key(*place), now_s=now_s))

        values = await self._store.ask(read)
        if values is None:
            raise StoreAwayError
        # From the secret, so that all workers make the same token of a value.
        return TokenTable(self._derive(*place).hex(), values, self._max_tokens)

    async def keep(self, context: PluginContext, table: TokenTable) -> None:
        """Keep what is new, beside what others keep for the same request.

        Raises:
            StoreAwayError: The store cannot be asked, or others write without end.
        """
        key = store_key(*self._place(context))
        now_s = clock.now().timestamp()

        async def merge(store: Store) -> bool:
            for _ in range(_MAX_TRIES):
                old = await store.get(key, now_s=now_s)
                new = self._fernet.encrypt(json.dumps({**self._open(old), **table.values}).encode()).decode()
                if await store.compare_and_set(key, old, new, now_s=now_s, ttl_s=self._ttl_s):
                    return True
            return False

        if not await self._store.ask(merge):
            raise StoreAwayError

    def _open(self, sealed: str | None) -> dict[str, str | int]:
        if sealed is None:
            return {}
        from cryptography.fernet import InvalidToken

        try:
            values: dict[str, str | int] = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            logger.warning("plugin `%s`: tokens in the store are sealed with another key, and stay", self._plugin)
            return {}
        return values

    async def close(self) -> None:
        """Give back what the store holds."""
        await self._store.close()
