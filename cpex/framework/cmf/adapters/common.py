"""What all adapters need: reading dicts that keep what is unknown, names of tools, data URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cpex.framework.cmf.message import ContentPart, Message, OpaqueContentPart, ToolCall, Unknown

__all__ = ["AdapterError", "ToolNames", "data_url", "from_data_url", "made", "message_of", "opaque", "rest_of"]

Model = TypeVar("Model", bound=BaseModel)
_KEEP = {"unknown": Unknown.KEEP}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)
_SHOWN = 5


class AdapterError(ValueError):
    """A message has no counterpart on the other side, or is not what its format says. Tells where, never what."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")
        self.place = place
        self.problem = problem


def made(cls: type[Model], place: str, rest: Mapping[str, Any] | None = None, **values: Any) -> Model:
    """A part, or what it holds, with the keys that the format has no field for.

    Raises:
        AdapterError: A value is missing or of a wrong type, or a foreign key is called like a field of ours.
    """
    foreign = rest or {}
    if taken := [key for key in foreign if key in cls.model_fields]:
        raise AdapterError(place, f"keys without a counterpart: {', '.join(taken)}")
    try:
        return cls.model_validate({**foreign, **values}, context=_KEEP)
    except ValidationError as error:
        # SECURITY: pydantic's own text shows the values.
        faults = [f"`{'.'.join(map(str, each['loc']))}` {each['type']}" for each in error.errors(include_input=False)]
        raise AdapterError(place, f"does not fit: {', '.join(faults[:_SHOWN])}") from None


def message_of(role: str, parts: Iterable[ContentPart], place: str) -> Message:
    """A message of finished parts.

    Raises:
        AdapterError: No role is called so.
    """
    return made(Message, place, role=role, content=list(parts))


def rest_of(block: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """The entries of a block that are not listed."""
    return {key: value for key, value in block.items() if key not in known}


def opaque(provider: str, block: Mapping[str, Any], place: str) -> OpaqueContentPart:
    """A block of a kind that has no counterpart, kept as it is under `<provider>.<type>`.

    Raises:
        AdapterError: The block has no type.
    """
    kind = block.get("type")
    if not isinstance(kind, str):
        raise AdapterError(place, "has no `type`")
    return made(OpaqueContentPart, place, content_type=f"{provider}.{kind}", block=rest_of(block, "type"))


class ToolNames:
    """How a provider's flat names of tools become a namespace and a name, and which call has which name.

    Args:
        separator: What stands between namespace and name in a flat name; `None` where there are no namespaces.
        known: `{id of a call: flat name}` of calls that are not among the messages.
    """

    def __init__(self, separator: str | None, known: Mapping[str, str] | None = None) -> None:
        self._separator = separator
        self._known = dict(known or {})

    def call(self, call_id: Any, flat: Any, arguments: Any, place: str, rest: Mapping[str, Any]) -> ToolCall:
        """A call; its name is remembered for the result."""
        namespace, name = self._split(flat) if isinstance(flat, str) else (None, flat)
        call = made(ToolCall, place, rest, tool_call_id=call_id, name=name, arguments=arguments, namespace=namespace)
        self._known[call.tool_call_id] = flat
        return call

    def of(self, call_id: Any, place: str) -> str:
        """The name of the tool that a result comes from.

        Raises:
            AdapterError: No call of that id is known. A guard that knows results by name would let it pass.
        """
        flat = self._known.get(call_id) if isinstance(call_id, str) else None
        if flat is None:
            raise AdapterError(
                place, "the call of this result is not among the messages; name its tool in `tool_names`"
            )
        return self._split(flat)[1]

    def flat(self, call: ToolCall, place: str) -> str:
        """The flat name of a call.

        Raises:
            AdapterError: It has a namespace, and there is no separator.
        """
        if not call.namespace:
            return call.name
        if self._separator is None:
            raise AdapterError(place, "the tool has a namespace; give the `separator` that joins it to the name")
        return f"{call.namespace}{self._separator}{call.name}"

    def _split(self, flat: str) -> tuple[str | None, str]:
        if self._separator is None or self._separator not in flat:
            return None, flat
        namespace, _, name = flat.partition(self._separator)
        return namespace, name


def from_data_url(url: Any) -> tuple[str, str] | None:
    """Media type and base64 text of a data URL; `None` for other addresses."""
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    return (found[1], found[2]) if found else None


def data_url(media_type: str | None, data: str) -> str:
    """The data URL of base64 text."""
    return f"data:{media_type or 'application/octet-stream'};base64,{data}"
