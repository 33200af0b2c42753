"""Questions and answers between two ends of ours, and how answers in either form are read.

A question as a frame: `{"id", "hook", "plugin", "payload", "context", "extensions"?, "timeout_s"?}`. Its answer:
`{"id", "plugin", "result", "context"?}` or `{"id", "plugin", "error"}`, where `context` holds only the maps that the
plugin changed, each whole: `{"state"?, "metadata"?, "global_context": {"state"?, "metadata"?}}`.

Source: docs/reference/external.md, "Frames".
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cpex.framework.extensions import Extensions
from cpex.framework.external import wire
from cpex.framework.external.restoring import restored
from cpex.framework.external.wire import WireError
from cpex.framework.memory.views import ContextSource
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.lazy import contents, is_untouched, raw_dict
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.framework.pipeline.turns import PLAIN_ALLOWS

__all__ = ["Answer", "ContextMaps", "Question"]


class Question(NamedTuple):
    """One call of one hook of one plugin, as the asking end sent it."""

    id: str
    hook: str
    plugin: str
    payload: dict[str, Any]
    context: dict[str, Any]
    extensions: dict[str, Any] | None = None
    timeout_s: float | None = None
    """Seconds after which nobody waits for the answer any more; `None` when the asking end did not say."""

    @classmethod
    def frame(
        cls,
        id: str,
        hook: str,
        plugin: str,
        payload: PluginPayload,
        context: PluginContext,
        extensions: Extensions | None,
        timeout_s: float | None,
        *,
        reveal: bool,
    ) -> bytes:
        """Write a question.

        Raises:
            WireError: The payload, the context or the extensions hold something that cannot cross.
        """
        document: dict[str, Any] = {"id": id, "hook": hook, "plugin": plugin, "payload": payload, "context": context}
        if extensions is not None:
            document["extensions"] = extensions
        if timeout_s is not None:
            document["timeout_s"] = timeout_s
        return wire.dumps(document, reveal=reveal)

    @classmethod
    def read(cls, frame: bytes) -> Question:
        """Read a question.

        Raises:
            WireError: It is none.
        """
        document = _document(frame)
        values = tuple(map(document.get, cls._fields))
        if not all(map(isinstance, values, _TYPES_OF_A_QUESTION)):
            raise WireError("a frame is no question: it needs id, hook, plugin, payload and context")
        return cls._make(values)

    def plugin_context(self) -> PluginContext:
        """The context, typed; made in full only when somebody looks, where there is nothing but the request's id.

        Raises:
            pydantic.ValidationError: It is none.
        """
        shared = self.context.get("global_context")
        if len(self.context) == 1 and type(shared) is dict and [*shared] == ["request_id"]:
            return ContextSource(GlobalContext(**shared)).fresh()
        return PluginContext.model_validate(self.context)


class Answer(NamedTuple):
    """What the other end said."""

    plugin: str | None = None
    result: dict[str, Any] | None = None
    """Fields of a `PluginResult`."""
    context: dict[str, Any] | None = None
    """Maps to take over whole."""
    error: dict[str, Any] | None = None
    """Fields of a `PluginErrorModel`; read only when there is no result."""

    @classmethod
    def frame(
        cls,
        id: str,
        plugin: str,
        result: PluginResult[Any] | None = None,
        context: dict[str, Any] | None = None,
        error: PluginErrorModel | None = None,
        *,
        reveal: bool = False,
    ) -> bytes:
        """Write an answer.

        Raises:
            WireError: Result or context hold something that cannot cross.
        """
        document: dict[str, Any] = {"id": id, "plugin": plugin}
        if error is not None:
            document["error"] = error
        elif not context and result is not None and raw_dict(result) in PLAIN_ALLOWS:
            return _plain_allow(id, plugin)
        else:
            document["result"] = result
        if context:
            document["context"] = context
        return wire.dumps(document, reveal=reveal)

    @classmethod
    def read(cls, frame: bytes, id: str, plugin: str = "") -> Answer:
        """Read the answer to one question.

        Args:
            plugin: The name that was asked for; the commonest answer to it is known at sight.

        Raises:
            WireError: It is none, or it answers another question.
        """
        if frame == _plain_allow(id, plugin):
            return cls(plugin, {"continue_processing": True})
        document = _document(frame)
        if document.get("id") != id:
            # SECURITY: a late answer must never decide about another operation.
            raise WireError("an answer carries the id of another question, and was dropped")
        return cls.of(document, plugin=document.get("plugin"))

    @classmethod
    def of(cls, document: dict[str, Any], plugin: Any = None) -> Answer:
        """Read an answer in the plain form; where both are there, the result wins over the error.

        Raises:
            WireError: It holds neither a result nor an error.
        """
        result, error = _object(document, "result"), _object(document, "error")
        if result is None and error is None:
            raise WireError("the answer holds neither a result nor an error")
        name = plugin if plugin is not None else document.get("plugin_name")
        return cls(name if isinstance(name, str) else None, result, _object(document, "context"), error)

    def with_payload_restored(self, original: PluginPayload, sent: dict[str, Any]) -> Answer:
        """The answer, with the parts of the caller's payload where it repeats what was sent; see `restoring.py`."""
        received = self.result.get("modified_payload") if self.result is not None else None
        if not isinstance(received, dict):
            return self
        result = {**(self.result or {}), "modified_payload": restored(original, sent, received)}
        return self._replace(result=result)

    def apply_context(self, context: PluginContext, sent: dict[str, Any] | None = None) -> None:
        """Take over the maps that came back, in place: whoever holds the context holds its maps.

        Args:
            sent: The context in the plain form, when that is how it was sent. Entries that come back as they were sent
                stay the caller's own, types and all; and of the global context only `state` counts, as in release 0.1.
        """
        if not self.context:
            # Touching the caller's context would have it made in full.
            return
        shared = self.context.get("global_context")
        shared = shared if isinstance(shared, dict) else {}
        sent_shared = sent.get("global_context", {}) if sent is not None else {}
        for name in ("state", "metadata"):
            _replace(getattr(context, name), self.context.get(name), (sent or {}).get(name, {}))
            if sent is None or name == "state":
                _replace(getattr(context.global_context, name), shared.get(name), sent_shared.get(name, {}))


def _plain_allow(id: str, plugin: str) -> bytes:
    """The answer of a plugin that allows and says nothing else; most do, and it is always written alike."""
    return b'{"id":%b,"plugin":%b,"result":{"continue_processing":true}}' % (wire.text(id), wire.text(plugin))


class ContextMaps:
    """What a context held at one moment, for the side that runs plugins: it answers with what they changed."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._before = {path: _fingerprint(values) for path, values in self._maps().items()}

    def _maps(self) -> dict[tuple[str, ...], dict[str, Any]]:
        """Those that are not empty. Nothing is touched by looking: most handlers look at none of them."""
        own = contents(self._context)
        shared = contents(own["global_context"])
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for name in ("state", "metadata"):
            if values := own.get(name):
                found[(name,)] = values
            if values := shared.get(name):
                found["global_context", name] = values
        return found

    def changes(self) -> dict[str, Any]:
        """The maps that are not what they were, each whole, in the shape of an answer's context; empty for none."""
        changes: dict[str, Any] = {}
        if is_untouched(self._context):
            return changes
        now = self._maps()
        for path in {**self._before, **now}:
            values = now.get(path, {})
            if _fingerprint(values) != self._before.get(path, b""):
                target = changes if len(path) == 1 else changes.setdefault(path[0], {})
                target[path[-1]] = values
        return changes


def _fingerprint(values: dict[str, Any]) -> bytes:
    """Text that differs when anything in a map does; most are empty, and cost nothing."""
    return wire.dumps(values, reveal=True) if values else b""


def _replace(target: dict[str, Any], content: Any, sent: dict[str, Any]) -> None:
    if not isinstance(content, dict):
        return
    for key in [key for key in target if key not in content]:
        del target[key]
    target.update(
        {key: item for key, item in content.items() if key not in target or key not in sent or sent[key] != item}
    )


_TYPES_OF_A_QUESTION: tuple[Any, ...] = (str, str, str, dict, dict, (dict, type(None)), (int, float, type(None)))


def _object(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = document.get(name)
    return value if isinstance(value, dict) else None


def _document(frame: bytes) -> dict[str, Any]:
    document = wire.loads(frame)
    if not isinstance(document, dict):
        raise WireError(f"a frame must hold an object, not a {type(document).__name__}")
    return document
