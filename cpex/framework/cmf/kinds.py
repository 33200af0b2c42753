"""What each kind of part says about itself: its text, its address, its name, its facts.

One small class for each kind, all of the same shape, so that a view does no more than ask the one for its part.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from cpex.framework.cmf.jsontext import json_text
from cpex.framework.cmf.uri import UriPattern, normal_uri, resource_pattern, verbatim_pattern

__all__ = ["KINDS", "Kind", "utf8_length"]

NO_SERVER = "_"
"""Stands in an address for a missing namespace or server."""


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8; half a surrogate pair, which UTF-8 has no bytes for, counts as three."""
    return len(text.encode("utf-8", errors="surrogatepass"))


class Kind:
    """The answers for parts that have nothing to say. Every method is given the part."""

    action: str | None = None
    """What such a part does, whoever says it; `None` when that depends on the role."""
    is_pre: bool | None = None
    """Whether it stands before the operation; `None` when that depends on the role."""

    def content(self, part: Any, *, ensure_ascii: bool) -> str | None:
        """The text of the part; JSON where it is structured."""
        return None

    def uri(self, part: Any) -> str | None:
        """Its address, names and namespaces in it as they are."""
        return None

    def address(self, part: Any) -> str | None:
        """Its address in the one spelling that patterns are compared with."""
        return self.uri(part)

    def pattern(self, pattern: str) -> UriPattern:
        """A pattern over such addresses."""
        return verbatim_pattern(pattern)

    def scope(self, part: Any) -> str | None:
        """The namespace or server that stands before the name in its address."""
        return None

    def name(self, part: Any) -> str | None:
        """Its name."""
        return None

    def args(self, part: Any) -> dict[str, Any] | None:
        """Its arguments, the dict itself."""
        return None

    def mime_type(self, part: Any) -> str | None:
        """The type of its data."""
        return None

    def size_bytes(self, part: Any) -> int | None:
        """Bytes of its content."""
        content = self.content(part, ensure_ascii=True)
        return None if content is None else utf8_length(content)

    def properties(self, part: Any) -> dict[str, Any]:
        """What only parts of this kind have, in a dict of its own."""
        return {}


class _Text(Kind):
    def content(self, part: Any, *, ensure_ascii: bool) -> str | None:
        text: str | None = part.text
        return text


class _Call(Kind):
    """A request by name, with arguments."""

    is_pre = True
    scheme = "tool"
    scope_field = "namespace"

    def content(self, part: Any, *, ensure_ascii: bool) -> str | None:
        return json_text(part.content.arguments, ensure_ascii=ensure_ascii)

    def uri(self, part: Any) -> str | None:
        return f"{self.scheme}://{self.scope(part) or NO_SERVER}/{part.content.name}"

    def address(self, part: Any) -> str | None:
        # SECURITY: a slash in the namespace would let `a/b` with tool `c` pass for `a` with tool `b/c`, and a namespace
        # that is called `_` for none at all.
        scope = self.scope(part)
        encoded = "%5F" if scope == NO_SERVER else (scope or NO_SERVER).replace("%", "%25").replace("/", "%2F")
        return f"{self.scheme}://{encoded}/{part.content.name}"

    def scope(self, part: Any) -> str | None:
        scope: str | None = getattr(part.content, self.scope_field)
        return scope

    def name(self, part: Any) -> str | None:
        name: str | None = part.content.name
        return name

    def args(self, part: Any) -> dict[str, Any] | None:
        args: dict[str, Any] | None = part.content.arguments
        return args


class _ToolCall(_Call):
    action = "execute"

    def properties(self, part: Any) -> dict[str, Any]:
        return {"namespace": part.content.namespace, "tool_id": part.content.tool_call_id}


class _PromptRequest(_Call):
    action = "invoke"
    scheme = "prompt"
    scope_field = "server_id"

    def properties(self, part: Any) -> dict[str, Any]:
        return {"server_id": part.content.server_id}


class _ToolResult(Kind):
    action = "receive"
    is_pre = False

    def content(self, part: Any, *, ensure_ascii: bool) -> str | None:
        result = part.content.content
        if result is None or isinstance(result, str):
            return result
        return json_text(result, ensure_ascii=ensure_ascii)

    def uri(self, part: Any) -> str | None:
        return f"tool_result://{part.content.tool_name}"

    def name(self, part: Any) -> str | None:
        name: str | None = part.content.tool_name
        return name

    def properties(self, part: Any) -> dict[str, Any]:
        return {"is_error": part.content.is_error, "tool_name": part.content.tool_name}


class _PromptResult(Kind):
    action = "receive"
    is_pre = False

    def content(self, part: Any, *, ensure_ascii: bool) -> str | None:
        text: str | None = part.content.content
        return text

    def uri(self, part: Any) -> str | None:
        return f"prompt_result://{part.content.prompt_name}"

    def name(self, part: Any) -> str | None:
        name: str | None = part.content.prompt_name
        return name

    def properties(self, part: Any) -> dict[str, Any]:
        return {"is_error": part.content.is_error, "message_count": len(part.content.messages)}


class _ResourceRef(Kind):
    action = "read"
    is_pre = True

    def uri(self, part: Any) -> str | None:
        uri: str | None = part.content.uri
        return uri

    def address(self, part: Any) -> str | None:
        uri = self.uri(part)
        return normal_uri(uri) if uri else uri

    def pattern(self, pattern: str) -> UriPattern:
        return resource_pattern(pattern)

    def name(self, part: Any) -> str | None:
        name: str | None = part.content.name
        return name


class _Resource(_ResourceRef):
    is_pre = False

    def content(self, part: Any, *, ensure_ascii: bool) -> str | None:
        text: str | None = part.content.content
        return text

    def mime_type(self, part: Any) -> str | None:
        mime_type: str | None = part.content.mime_type
        return mime_type

    def size_bytes(self, part: Any) -> int | None:
        resource = part.content
        if resource.size_bytes is not None:
            size: int = resource.size_bytes
            return size
        if resource.content:
            return utf8_length(resource.content)
        return len(resource.blob) if resource.blob else None

    def properties(self, part: Any) -> dict[str, Any]:
        resource = part.content
        # `model_copy` may have put plain text where the enum was.
        kind = getattr(resource.resource_type, "value", resource.resource_type)
        return {"resource_type": kind, "version": resource.version, "annotations": resource.annotations}


class _Medium(Kind):
    def mime_type(self, part: Any) -> str | None:
        mime_type: str | None = part.content.media_type
        return mime_type


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "text": _Text(),
        "thinking": _Text(),
        "tool_call": _ToolCall(),
        "tool_result": _ToolResult(),
        "resource": _Resource(),
        "resource_ref": _ResourceRef(),
        "prompt_request": _PromptRequest(),
        "prompt_result": _PromptResult(),
        "image": _Medium(),
        "video": _Medium(),
        "audio": _Medium(),
        "document": _Medium(),
    }
)
"""`{content type: its kind}`."""
