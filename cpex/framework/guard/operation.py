"""One operation on its way: the hooks before it, then whatever the host does, then the hooks after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from cpex.framework.errors import CoverageError, GuardError, PluginViolationError
from cpex.framework.guard.operations import Kind, Step
from cpex.framework.models.context import PluginContextTable

if TYPE_CHECKING:
    from types import TracebackType

    from cpex.framework.extensions import Extensions
    from cpex.framework.guard.request import Request

__all__ = ["Operation", "current_operation"]

current_operation: ContextVar[Operation | None] = ContextVar("cpex_operation", default=None)
"""The operation that is being performed in this context."""


class Operation:
    """What `Request.operation` gives: for hosts whose framework calls them back before and after.

        async with request.operation(TOOL, payload) as operation:
            payload = await operation.before()
            result = await operation.after(await search(**payload.args))

    Leaving the block notes how it ended. Without the block, `after` or `failed` must be called; what is begun and never
    ended is a gap in the coverage.

    Attributes:
        id: Ties the result to the call; the request's id and a number.
        payload: What the operation is to be performed with; changes in `before`.
        denial: The denial that ended it, if one did.
        retry_delay_ms: Milliseconds; the largest that a plugin asked for.
        http_headers: What plugins want to be sent with the answer.
    """

    def __init__(self, request: Request, kind: Kind, payload: Any, id: str, extensions: Extensions | None) -> None:
        self.request = request
        self.kind = kind
        self.payload = payload
        self.id = id
        self.denial: PluginViolationError | None = None
        self.retry_delay_ms = 0
        self.http_headers: dict[str, str] = {}
        self.record = request.ledger.begin(id, kind.name, kind.target(payload))
        self._overlay = extensions
        self._start: PluginContextTable = request.contexts.entries
        self._table: PluginContextTable | None = request.contexts.lend()

    @property
    def server(self) -> str | None:
        """The server that is asked, if the request says so."""
        return self.request.context.server_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)

    @contextmanager
    def being_performed(self) -> Iterator[None]:
        """While it is open, functions that are marked with `covered` know that a guard stands around them."""
        token = current_operation.set(self)
        try:
            yield
        finally:
            current_operation.reset(token)

    async def before(self) -> Any:
        """Run the hooks before the operation.

        Returns:
            The payload to perform it with.

        Raises:
            PluginViolationError: A plugin denied.
            PluginError: A plugin failed and its `on_error` is `fail`.
            CoverageError: A mandatory hook has not run.
        """
        self.payload = await self._run(self.kind.before, self.payload)
        if self.kind.encloses:
            self._return()
        return self.payload

    async def after(self, result: Any) -> Any:
        """Run the hooks after the operation.

        Returns:
            The result to hand on.

        Raises:
            PluginViolationError: A plugin denied; the result is withheld.
            PluginError: A plugin failed and its `on_error` is `fail`.
            GuardError: The result can be read once only, such as a generator; it is withheld.
            CoverageError: A mandatory hook has not run; the result is withheld.
        """
        # SECURITY: what it will give goes past plugins, who would take it for a result without content.
        if isinstance(result, AsyncIterator | Iterator) and any(map(self.request.calls, self.kind.after)):
            raise GuardError(
                f"{self.kind.name} `{self.kind.target(self.payload)[:200]}` gave a {type(result).__name__}, which is "
                "read once, and plugins judge results as a whole; give all of it, such as a list"
            )
        if self.kind.encloses:
            self._borrow_more()
        result = await self._run(self.kind.after, result)
        self._return()
        self.request.ledger.end(self.record, "completed")
        return result

    def failed(self, error: BaseException) -> None:
        """Note that the operation, or a hook of it, ended with an exception. The hooks after it do not run."""
        self._return()
        if error is self.denial:
            self.request.ledger.end(self.record, "denied")
        elif isinstance(error, asyncio.CancelledError):
            self.request.ledger.end(self.record, "cancelled", error)
        else:
            self.request.ledger.end(self.record, "bypassed" if isinstance(error, CoverageError) else "failed", error)

    async def _run(self, steps: tuple[Step, ...], state: Any) -> Any:
        """Call the hooks one after another; what one of them changed is what the next one sees."""
        for step in steps:
            if not self.request.calls(step):
                continue
            changed = {}
            for index, payload in enumerate(step.show(self, state)):
                modified = await self._call(step.hook, payload)
                if modified is not None:
                    changed[index] = modified
            if changed:
                state = step.take(self, state, changed)
        self.request.ledger.check(self.record, (step.hook for step in steps))
        return state

    async def _call(self, hook: str, payload: Any) -> Any:
        request = self.request
        extensions = request.seen_by(self._overlay)
        try:
            result, self._table = await request.manager.invoke_hook(
                hook, payload, request.context, self._table, violations_as_exceptions=True, extensions=extensions
            )
        except PluginViolationError as denial:
            self.denial = denial
            self.record.denied_by = hook
            raise
        if result.modified_extensions is not None:
            self._overlay = request.take_extensions(self._overlay, extensions, result.modified_extensions)
        if result.retry_delay_ms > self.retry_delay_ms:
            self.retry_delay_ms = result.retry_delay_ms
        if result.http_headers:
            self.http_headers.update(result.http_headers)
        if hook in request.ledger.coverage.hooks:
            request.ledger.ran(self.record, hook, result.executions)
        return result.modified_payload

    def _return(self) -> None:
        """Give back what plugins keep, so that the request's other operations go on from there."""
        self.request.contexts.take_back(self._start, self._table)
        self._start = self.request.contexts.entries

    def _borrow_more(self) -> None:
        """Go on from what operations inside of this one have left."""
        self._start = self.request.contexts.entries
        self._table = self.request.contexts.lend()
