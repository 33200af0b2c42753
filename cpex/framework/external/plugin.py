"""A plugin that runs behind a link: what is the same over every transport.

At the start its server is asked for the plugin's configuration, which becomes this end's, overlaid with what the
operator wrote here. A hook call becomes one question, in a frame when the server knows frames and in the plain form
when it does not. This end's mode, conditions, `on_error` and capabilities decide, whatever the server's are.

A question is asked a second time only when it certainly did not reach the server: a hook with effects must not run
twice.

Source: docs/reference/external.md.
"""

from __future__ import annotations

import itertools
import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ValidationError

from cpex.framework.base import Plugin, hook_name
from cpex.framework.constants import IGNORE_CONFIG_EXTERNAL
from cpex.framework.errors import PluginError, cause_text
from cpex.framework.extensions import Extensions
from cpex.framework.external import wire
from cpex.framework.external.frames import Answer, Question
from cpex.framework.external.port import Link, LinkError
from cpex.framework.external.session import Attempts, Session
from cpex.framework.external.wire import ADVERTISEMENT, WireError
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.context import PluginContext
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult

__all__ = ["RemotePlugin"]

logger = logging.getLogger(__name__)

_ids = itertools.count(1)
_ALLOWED = {"continue_processing": True}
"""The result of a plugin that allows and says nothing else."""


class RemotePlugin(Plugin):
    """Base of the plugins of kind `external`; a transport adds how to connect."""

    _CODES: ClassVar[Mapping[str, str]] = {}
    """Code of a `LinkError` -> code of the `PluginError` made of it, where a transport's users know another one."""
    _NEVER_OPENED: ClassVar[str | None] = None
    """What a call says of a plugin that nobody has started; `None` where the call connects by itself."""

    def __init__(self, config: PluginConfig) -> None:
        """Keep the configuration; nothing is opened."""
        super().__init__(config)
        self._local = config
        self._remote_name = config.name
        self._features: frozenset[str] = frozenset()
        self._session: Session | None = None

    # What a transport adds.

    @abstractmethod
    def _make_link(self) -> Link:
        """A new link to the configured address.

        Raises:
            PluginError: The configuration lacks what the transport needs.
        """

    @abstractmethod
    def _address(self) -> str:
        """The configured address as messages show it, without credentials."""

    def _first_attempts(self) -> Attempts:
        return Attempts(3, float)

    def _later_attempts(self) -> Attempts:
        return Attempts(3, lambda failures: 0.1 * failures)

    # Life.

    @property
    def connected(self) -> bool:
        """Whether there is a connection that has answered."""
        return self._session is not None and self._session.is_ready

    async def initialize(self) -> None:
        """Connect, fetch the plugin's configuration from its server and merge it with the local one.

        Raises:
            PluginError: The server could not be reached, does not know the plugin, or sent a configuration that is
                none. Nothing is left open.
        """
        try:
            await self._opened().ready()
        except LinkError as error:
            raise self._link_failure(error) from error

    def connect_when_called(self) -> None:
        """Start without a connection: the first call makes one, or says why it cannot."""
        self._opened()

    async def shutdown(self) -> None:
        """Close the connection. A later call opens it again."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> Session:
        if self._session is None:
            self._session = Session(self._make_link(), self._first_attempts(), self._later_attempts(), self._greet)
        return self._session

    async def _greet(self, link: Link) -> None:
        """Learn who answers on a new connection: the plugin's configuration, and which form to use."""
        remote = await link.get_plugin_config(self._local.name)
        if not remote:
            raise self._failure(
                f"Unable to retrieve configuration for external plugin {self._local.name} from {self._address()}; "
                "is it in the server's configuration under that name?",
                "external_unknown_plugin",
            )
        about = remote.pop(ADVERTISEMENT, None)
        about = about if isinstance(about, dict) else {}
        self._features = frozenset(each for each in about.get("features") or () if isinstance(each, str))
        if beyond := about.get("capabilities"):
            remote["capabilities"] = [*(remote.get("capabilities") or ()), *beyond]
        # Servers of release 0.1 compare names without case here, and with case when a hook is called.
        self._remote_name = str(remote.get("name") or self._local.name)
        merged = self._merged(remote)
        if self._session is not None and self._session.was_open:
            # Plans are compiled from the first answer; what a restarted server says of its policy now comes too late.
            return
        self._config = merged

    def _merged(self, remote: dict[str, Any]) -> PluginConfig:
        local = {name: getattr(self._local, name) for name in self._local.model_fields_set}
        if local.get("hooks") == []:
            # An operator who wants no hooks disables the plugin; an empty list is what a saved file has by itself.
            del local["hooks"]
        try:
            # Validated by itself first: it migrates the mode words of older servers before anything is laid over them.
            theirs = PluginConfig.model_validate(remote, context={IGNORE_CONFIG_EXTERNAL: True})
            merged = {name: getattr(theirs, name) for name in theirs.model_fields_set} | local
            return PluginConfig.model_validate(merged, context={IGNORE_CONFIG_EXTERNAL: True})
        except ValidationError as error:
            raise self._failure(
                f"external plugin {self._local.name}: the configuration that {self._address()} sent cannot be used: "
                f"{cause_text(error)}",
                "external_config",
            ) from None

    # Calls.

    async def invoke_hook(
        self,
        hook_type: str,
        payload: PluginPayload,
        context: PluginContext,
        extensions: Extensions | None = None,
    ) -> PluginResult[Any]:
        """Run one hook of the plugin where it lives.

        Args:
            payload: Never changed.
            context: Receives the plugin's changes of its state and metadata, and of the shared state.
            extensions: What this end's capabilities let the plugin see; crosses only to a server that knows frames.

        Raises:
            PluginError: The server did not answer, answered with something else than an answer, or the plugin failed.
        """
        hook = hook_name(hook_type)
        result_type = get_hook_registry().get_result_type(hook)
        if result_type is None:
            raise self._failure(
                f"Hook type '{hook}' not registered; register its payload and result classes with "
                "`get_hook_registry().register_hook`",
                "external_unknown_hook",
            )
        try:
            answer = await self._ask(hook, payload, context, extensions)
            if answer.result is None:
                raise self._remote_failure(answer.error or {})
            if answer.result == _ALLOWED:
                # Made without validation, and what it does not say only when somebody looks.
                allowed: PluginResult[Any] = result_type(continue_processing=True)
                return allowed
            return self.json_to_result(hook, answer.result)
        except LinkError as error:
            raise self._link_failure(error) from error
        except WireError as error:
            text = f"external plugin {self.name}, hook {hook}: {error}"
            raise self._failure(text, "external_value") from error
        except ValidationError as error:
            text = f"external plugin {self.name}, hook {hook}: its result does not fit the hook: {cause_text(error)}"
            raise self._failure(text, "external_result") from None

    async def _ask(
        self, hook: str, payload: PluginPayload, context: PluginContext, extensions: Extensions | None
    ) -> Answer:
        if self._session is None and self._NEVER_OPENED is not None:
            raise self._failure(f"{self._NEVER_OPENED}; await `initialize()` first", "external_config")
        session = self._opened()
        for last in (False, True):
            link = session.link or await session.ready()
            try:
                if "frames" in self._features:
                    id, frame = self._question(hook, payload, context, extensions)
                    return self._taken_in(
                        Answer.read(await link.exchange(frame), id, self._remote_name), frame, payload, context
                    )
                return await self._ask_plainly(link, hook, payload, context)
            except LinkError as error:
                if error.sent or last:
                    raise
                # The connection was found dead before the question left: once more, on a new one.
        raise AssertionError("the second round returns or raises")

    def _question(
        self, hook: str, payload: PluginPayload, context: PluginContext, extensions: Extensions | None
    ) -> tuple[str, bytes]:
        """A correlation id, and the frame that carries it."""
        id = f"{next(_ids):x}"
        config = self._config
        reveal = _may_see_secrets(config, hook)
        return id, Question.frame(
            id, hook, self._remote_name, payload, context, extensions, config.timeout_s, reveal=reveal
        )

    def _taken_in(self, answer: Answer, frame: bytes, payload: PluginPayload, context: PluginContext) -> Answer:
        answer.apply_context(context)
        if wire.holds_masked_secrets(frame):
            return answer.with_payload_restored(payload, wire.loads(frame)["payload"])
        return answer

    async def _ask_plainly(self, link: Link, hook: str, payload: PluginPayload, context: PluginContext) -> Answer:
        sent = wire.plain(context)
        sent_payload = wire.plain(payload)
        answer = Answer.of(await link.invoke_hook(hook, self._remote_name, sent_payload, sent))
        answer.apply_context(context, sent)
        return answer.with_payload_restored(payload, sent_payload)

    # Failures.

    def _failure(self, message: str, code: str) -> PluginError:
        return PluginError(PluginErrorModel(message=message, plugin_name=self._local.name, code=code))

    def _link_failure(self, error: LinkError) -> PluginError:
        code = self._CODES.get(error.code, f"external_{error.code}")
        return self._failure(f"external plugin {self._local.name} at {self._address()}: {error}", code)

    def _remote_failure(self, error: dict[str, Any]) -> PluginError:
        """What the other end says went wrong there.

        A plugin's own `PluginError` keeps the name that it bears, as in process; the name that the plugin has on
        its server is told as the one that it has here.
        """
        values = {"message": "the server gave no reason", **{k: v for k, v in error.items() if v is not None}}
        named = values.get("plugin_name")
        if not isinstance(named, str) or not named or named.lower() == self._remote_name.lower():
            named = self._local.name
        try:
            model = PluginErrorModel.model_validate({**values, "plugin_name": named})
        except ValidationError:
            model = PluginErrorModel(message=str(values["message"]), plugin_name=self._local.name)
        return PluginError(model)


def _may_see_secrets(config: PluginConfig, hook: str) -> bool:
    """Whether secrets of a payload cross as they are; see docs/reference/external.md, "Secrets"."""
    if hook == "token_delegate":
        return "read_delegated_tokens" in config.capabilities
    return "read_inbound_credentials" in config.capabilities
