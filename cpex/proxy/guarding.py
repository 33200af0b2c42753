"""Where plugins decide: about calls of tools, prompts and resources, and about lists of them.

Source: docs/proxy.md, "Which hooks run".
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from cpex.framework.errors import GuardError, PayloadSizeError, PluginError, PluginViolationError, cause_text
from cpex.framework.extensions import Extensions
from cpex.framework.guard.facts import RequestFacts
from cpex.framework.guard.lists import LISTS, Listing
from cpex.framework.guard.methods import METHODS, Method
from cpex.framework.guard.operation import Operation
from cpex.framework.guard.operations import TOOL, Kind
from cpex.framework.manager import PluginManager
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginViolation
from cpex.proxy.eras import envelope, is_kept_open
from cpex.proxy.errors import INTERNAL, INVALID_PARAMS, AnswerError, denial_error, denied_result

__all__ = ["LISTS", "Guarding", "Known", "Listing"]

logger = logging.getLogger(__name__)

MAX_TASKS = 1000
"""Calls of one session that became tasks, and whose results may still be fetched."""
Forward = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends parameters to the server and gives its result."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one request, beside what is known of its session."""

    server: str
    metadata: dict[str, Any] = field(default_factory=dict)
    extensions: Extensions | None = None


class Guarding:
    """What a session asks of plugins."""

    def __init__(self, manager: PluginManager, facts: RequestFacts) -> None:
        """Keep the manager, which is running, and what is known of every request of the session."""
        self._manager = manager
        self._facts = facts
        self._late: dict[str, Operation] = {}

    async def use(self, method: str, params: dict[str, Any], known: Known, forward: Forward) -> dict[str, Any]:
        """Use a tool, a prompt or a resource between its hooks.

        Raises:
            AnswerError: The parameters are malformed, a plugin denied or failed, or the server answered with an error.
        """
        guarded = METHODS[method]
        try:
            payload = guarded.payload(params)
        except (KeyError, ValidationError) as error:
            # SECURITY: pydantic's own text shows the values.
            text = f"the parameters of `{method}` do not fit the protocol"
            raise AnswerError.of(INVALID_PARAMS, text) from error
        try:
            return await self._perform(guarded, payload, method, params, known, forward)
        except PluginViolationError as denial:
            # Who asked for a task expects one or an error, not a result.
            told = _told(guarded.kind if "task" not in params else None, denial)
            return told if envelope(params) is None else {"resultType": "complete", **told}
        except (PluginError, GuardError, PayloadSizeError) as error:
            raise _failure(error) from error

    async def _perform(
        self, guarded: Method, payload: Any, method: str, params: dict[str, Any], known: Known, forward: Forward
    ) -> dict[str, Any]:
        facts = self._facts.copy()
        facts["server_id"] = known.server
        facts["metadata"] = known.metadata
        facts["extensions"] = known.extensions
        request = self._manager.request(**facts)
        operation = request.operation(guarded.kind, payload)
        try:
            ready = await operation.before()
            changed = {} if ready is payload else _plain(guarded.params(ready), method)
            with operation.being_performed():
                result = await forward({**params, **changed})
            if (task := _task_of(params, result)) is not None:
                self._keep(task, operation)
                return result
            if envelope(params) is not None and result.get("resultType", "complete") != "complete":
                return _kept_open(operation, result, guarded=request.guards(guarded.kind))
            after = await operation.after(result)
            request.close()
        except BaseException as error:
            operation.failed(error)
            request.close(error)
            raise
        answer = result if after is result else {**_of_the_wire(result), **_plain(after, method)}
        return _private(answer) if request.guards(guarded.kind) else answer

    def kept_private(self, hook: str, page: dict[str, Any]) -> dict[str, Any]:
        """A page of a list that may be kept for its client only, where plugins decide what a client sees."""
        return _private(page) if self._manager.is_watched(hook) else page

    def _keep(self, task: str, operation: Operation) -> None:
        if len(self._late) >= MAX_TASKS:
            raise AnswerError.of(INTERNAL, f"{MAX_TASKS} tasks wait for their results to be fetched; fetch some first")
        self._late[task] = operation

    async def finish(self, task: str, result: dict[str, Any]) -> dict[str, Any]:
        """Judge the result of a call that a server answered with a task, when the client fetches it.

        Raises:
            AnswerError: A plugin denied or failed, or the task is of no call that was seen here.
        """
        operation = self._late.get(task)
        if operation is None:
            # SECURITY: whose result it is decides about who may see it.
            raise AnswerError.of(INVALID_PARAMS, "the task belongs to no call of this session")
        try:
            after = await operation.after(result)
        except PluginViolationError as denial:
            return _told(operation.kind, denial)
        except (PluginError, GuardError, PayloadSizeError) as error:
            raise _failure(error) from error
        return result if after is result else cast("dict[str, Any]", _plain(after, "tasks/result"))

    def close(self) -> None:
        """End the session: tasks whose results were never fetched are given up."""
        for operation in self._late.values():
            operation.failed(asyncio.CancelledError())
        self._late.clear()

    async def show(self, method: str, found: list[dict[str, Any]], known: Known) -> list[dict[str, Any]]:
        """What of a list the client may see.

        Raises:
            AnswerError: A plugin denied or failed.
        """
        listing = LISTS[method]
        if not self._manager.is_watched(listing.hook):
            return found
        facts, server = self._facts, known.server
        context = GlobalContext(
            request_id=uuid.uuid4().hex,
            user=facts.get("user"),
            tenant_id=facts.get("tenant_id"),
            server_id=server,
            metadata=known.metadata | ({"session_id": facts["session_id"]} if "session_id" in facts else {}),
        )
        try:
            payload = listing.payload(found)
            result, _ = await self._manager.invoke_hook(
                listing.hook, payload, context, violations_as_exceptions=True, extensions=known.extensions
            )
        except ValidationError as error:
            raise AnswerError.of(INTERNAL, f"server `{server}` answered `{method}` with what is no list") from error
        except PluginViolationError as denial:
            raise denial_error(denial.violation or _unnamed(denial)) from denial
        except (PluginError, PayloadSizeError) as error:
            raise _failure(error) from error
        changed = result.modified_payload
        return found if changed is None else list(_plain(listing.shown(changed), method))


def _task_of(params: dict[str, Any], result: dict[str, Any]) -> str | None:
    """The id of the task that a call became; nothing of its result may stand beside it."""
    task = result.get("task")
    if "task" not in params or not isinstance(task, dict) or not set(result) <= {"task", "_meta"}:
        return None
    return str(task.get("taskId"))


def _kept_open(operation: Operation, result: dict[str, Any], *, guarded: bool) -> dict[str, Any]:
    """A result that is none yet. What the client then asks anew is judged like any call, and so is its result."""
    if not is_kept_open(result) and guarded:
        # SECURITY: what came of it would be fetched by other means, past the hooks after it.
        text = f"the server answered with a result of type `{result['resultType']!s:.50}`, which plugins cannot judge"
        raise AnswerError.of(INTERNAL, text)
    operation.failed(asyncio.CancelledError())
    return result


def _of_the_wire(result: dict[str, Any]) -> dict[str, Any]:
    """What newer versions require beside the content, and a plugin that makes a result anew knows nothing of."""
    return {key: result[key] for key in ("resultType", "ttlMs", "cacheScope") if key in result}


def _private(result: dict[str, Any]) -> dict[str, Any]:
    """A result that nobody keeps for others: plugins may have decided otherwise for them."""
    return {**result, "cacheScope": "private"} if result.get("cacheScope") == "public" else result


def _told(kind: Kind | None, denial: PluginViolationError) -> dict[str, Any]:
    violation = denial.violation or _unnamed(denial)
    if kind is TOOL and violation.mcp_error_code is None:
        return denied_result(violation)
    raise denial_error(violation) from denial


def _plain(value: Any, method: str) -> Any:
    """What plugins left, as JSON values."""
    try:
        plain = to_jsonable_python(value, by_alias=True)
    except (PydanticSerializationError, ValueError) as error:
        text = f"a plugin turned the content of `{method}` into what is no JSON"
        raise AnswerError.of(INTERNAL, text) from error
    if not isinstance(plain, type(value) if isinstance(value, list) else dict):
        raise AnswerError.of(INTERNAL, f"a plugin turned the result of `{method}` into what is no result of it")
    return plain


def _unnamed(denial: PluginViolationError) -> PluginViolation:
    return PluginViolation(reason=denial.message, description="", code="plugin_violation")


def _failure(error: Exception) -> AnswerError:
    # The message of a plugin's own error may hold what it was given; the log has it.
    plugin = getattr(getattr(error, "error", None), "plugin_name", "")
    logger.error("An operation was refused because its guard failed: %s", cause_text(error))
    if isinstance(error, PayloadSizeError):
        # It tells sizes, and nothing of the content.
        return AnswerError.of(INTERNAL, f"too large for the plugins to judge: {error}")
    what = f"plugin `{plugin}` failed" if plugin else "the guard failed"
    return AnswerError.of(INTERNAL, f"{what}, so the operation was refused; the proxy's log says more")
