"""The guard in LiteLLM's proxy, as a guardrail that its `config.yaml` names. Needs the extra `litellm-proxy`.

    guardrails:
      - guardrail_name: cpex
        litellm_params:
          guardrail: cpex.adapters.litellm_proxy.guardrail
          mode: [pre_call, post_call]
          default_on: true
          cpex_config: plugins.yaml

Source: docs/adapters/litellm_proxy.md; https://docs.litellm.ai/docs/proxy/guardrails/custom_guardrail.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from cpex.adapters._extras import needs

with needs("litellm-proxy"):
    from litellm.types.guardrails import Mode

from cpex.adapters.litellm import GuardGuardrail
from cpex.framework.errors import GuardError, cause_text
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config

__all__ = ["ProxyGuardrail", "guardrail"]

logger = logging.getLogger(__name__)


def guardrail(*, cpex_config: str | None = None, **options: Any) -> ProxyGuardrail:
    """What the proxy calls with the keys of `litellm_params`. It never raises: see `ProxyGuardrail`.

    Args:
        cpex_config: Path of the plugins' configuration, seen from where the proxy was started.
    """
    return ProxyGuardrail(cpex_config, **options)


class ProxyGuardrail(GuardGuardrail):
    """A guardrail that starts its plugins on the proxy's event loop, and shuts them down when that ends.

    SECURITY: LiteLLM goes on without a guardrail that could not be made. This one is always made, and where its plugins
    do not start it says so in the log and refuses every call.
    """

    def __init__(self, cpex_config: str | None, **options: Any) -> None:
        """Begin to start the plugins where a loop runs, else with the first call."""
        # LiteLLM wants a `mode`, and calls for no other moment; it is the plugins that say which hooks they handle.
        self._mode = options.pop("event_hook", None)
        self._parallel = options.pop("run_in_parallel", False)
        # No plugins, until those of the configuration run; `ready` lets nothing pass before.
        super().__init__(TenantPluginManager(Config()), **options)
        self._config = cpex_config
        self._life: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        try:
            self._begin_life()
        except RuntimeError:
            # No loop runs yet.
            pass

    # LiteLLM looks for hooks in the class itself.
    async_pre_call_hook = GuardGuardrail.async_pre_call_hook
    async_post_call_success_hook = GuardGuardrail.async_post_call_success_hook

    async def ready(self) -> None:
        """Wait until the plugins run.

        Raises:
            GuardError: They did not start.
        """
        started = self._started or self._begin_life()
        await asyncio.shield(started)

    def _begin_life(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        started = self._started = loop.create_future()
        self._life = loop.create_task(self._live(started), name="cpex-guardrail")
        return started

    async def _live(self, started: asyncio.Future[None]) -> None:
        try:
            await self._start()
        # Whatever keeps the plugins from starting: the proxy runs on, and every call is refused.
        except Exception as error:
            name, said = self.guardrail_name, cause_text(error)
            logger.error("Guardrail `%s` did not start, so every call is refused: %s", name, said)
            started.set_exception(GuardError("the plugins did not start"))
            # Looked at here: a proxy that is never called must not warn of it.
            started.exception()
        else:
            started.set_result(None)
        try:
            # Until the loop ends, which cancels what runs on it.
            await asyncio.Event().wait()
        finally:
            await self._manager.shutdown()

    async def _start(self) -> None:
        """Start the plugins.

        Raises:
            GuardError: The proxy's configuration does not let them do their work.
            ConfigError: Theirs has faults, or is not there.
            PluginLoadError: One of them could not be started.
        """
        if not self._config:
            raise GuardError("it does not say which plugins it runs; add `cpex_config: plugins.yaml`")
        if isinstance(self._mode, Mapping | Mode):
            raise GuardError("a `mode` by tags would leave out calls; give `mode: [pre_call, post_call]`")
        if self._parallel:
            raise GuardError("LiteLLM drops what guardrails with `run_in_parallel` rewrite; leave it out")
        self._manager = TenantPluginManager(self._config)
        await self._manager.initialize()
