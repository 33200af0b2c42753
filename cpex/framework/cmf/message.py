"""Messages and what they are made of.

A message is a role and a list of parts. Each part has a `content_type` that says which of twelve kinds it is. Text
parts hold their text; the others hold one object, named `content`, that describes a call, a result, a document or a
medium. Everything is frozen, so a change is a new value made with `model_copy(update={...})`, which runs no checks;
`cpex.framework.cmf.edit.checked_copy` runs them.

What becomes of keys and kinds that are unknown is said by the context of the validation: `{"unknown": word}`, see
`Unknown`. One module, because a prompt's result holds messages again. How a message is read is in `view.py`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

if TYPE_CHECKING:
    # At run time the view imports this module.
    from cpex.framework.cmf.view import MessageView
    from cpex.framework.extensions import Extensions

__all__ = [
    "AudioContentPart",
    "AudioSource",
    "Channel",
    "ContentPart",
    "ContentPartUnion",
    "ContentType",
    "DocumentContentPart",
    "DocumentSource",
    "ImageContentPart",
    "ImageSource",
    "Message",
    "OpaqueContentPart",
    "PromptRequest",
    "PromptRequestContentPart",
    "PromptResult",
    "PromptResultContentPart",
    "Resource",
    "ResourceContentPart",
    "ResourceRefContentPart",
    "ResourceReference",
    "ResourceType",
    "Role",
    "TextContent",
    "ThinkingContent",
    "ToolCall",
    "ToolCallContentPart",
    "ToolResult",
    "ToolResultContentPart",
    "Unknown",
    "VideoContentPart",
    "VideoSource",
]


class Role(str, Enum):
    """Who speaks."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Channel(str, Enum):
    """What a model's output is meant for."""

    ANALYSIS = "analysis"
    COMMENTARY = "commentary"
    FINAL = "final"


class ContentType(str, Enum):
    """The kinds of part."""

    TEXT = "text"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    RESOURCE = "resource"
    RESOURCE_REF = "resource_ref"
    PROMPT_REQUEST = "prompt_request"
    PROMPT_RESULT = "prompt_result"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"


class ResourceType(str, Enum):
    """Where a resource comes from."""

    FILE = "file"
    BLOB = "blob"
    URI = "uri"
    DATABASE = "database"
    API = "api"
    MEMORY = "memory"
    ARTIFACT = "artifact"


class Unknown(str, Enum):
    """What becomes of keys of parts, and of kinds of part, that this version does not know."""

    IGNORE = "ignore"
    """Keys are dropped, kinds are refused; the default."""
    REFUSE = "refuse"
    """Both are errors with their place."""
    KEEP = "keep"
    """Keys stay in `model_extra`, parts become `OpaqueContentPart`; both are written again as they were read."""


def _unknown(context: Any) -> Unknown:
    return Unknown(context.get("unknown", Unknown.IGNORE)) if isinstance(context, Mapping) else Unknown.IGNORE


class _Frozen(BaseModel):
    """Base of everything in a message."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def model_post_init(self, context: Any, /) -> None:
        """Judge unknown keys. A hook of construction: validators see finished parts that are handed in as well."""
        extra = self.__pydantic_extra__
        if not extra or (word := _unknown(context)) is Unknown.KEEP:
            return
        if word is Unknown.REFUSE:
            known = ", ".join(f"`{name}`" for name in type(self).model_fields)
            raise ValueError(f"unknown {', '.join(f'`{key}`' for key in extra)}; known: {known}")
        self.__pydantic_fields_set__.difference_update(extra)
        extra.clear()


class ToolCall(_Frozen):
    """A tool that a model wants to have called."""

    tool_call_id: str
    """Ties the result to the call."""
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    """`{argument: value}`; values are whatever the host put there."""
    namespace: str | None = None
    """The server or group that the tool belongs to."""


class ToolResult(_Frozen):
    """What a tool has answered."""

    tool_call_id: str
    tool_name: str
    content: Any = None
    is_error: bool = False


def _read_blob(value: Any) -> Any:
    """Undo what `_write_blob` does with bytes that are no text; anything else is for pydantic to judge."""
    if isinstance(value, dict) and set(value) == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(f"not valid base64: {error}") from error
    return value


def _write_blob(blob: bytes | None) -> str | dict[str, str] | None:
    # The format writes bytes as UTF-8 text. An object for the rest is refused by readers that do not know it, where
    # base64 text would be taken for the bytes themselves.
    if blob is None:
        return None
    try:
        return blob.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(blob).decode()}


Blob: TypeAlias = Annotated[
    bytes | None,
    BeforeValidator(_read_blob),
    PlainSerializer(_write_blob, return_type=str | dict[str, str] | None, when_used="json"),
]


class Resource(_Frozen):
    """A resource with its content: text or bytes, not both."""

    resource_request_id: str
    uri: str
    name: str | None = None
    description: str | None = None
    resource_type: ResourceType
    content: str | None = None
    """The content when it is text."""
    blob: Blob = None
    """The content when it is bytes. In JSON: UTF-8 text, or `{"base64": ...}` when the bytes are no text."""
    mime_type: str | None = None
    size_bytes: int | None = None
    annotations: dict[str, Any] = Field(default_factory=dict)
    version: str | None = None

    @model_validator(mode="after")
    def _one_content(self) -> Resource:
        if self.content is not None and self.blob is not None:
            raise ValueError("a resource has either `content` or `blob`, not both")
        return self


class ResourceReference(_Frozen):
    """A resource that is named but not included, or a part of one."""

    resource_request_id: str
    uri: str
    name: str | None = None
    resource_type: ResourceType
    range_start: int | None = None
    range_end: int | None = None
    """Not less than `range_start`. What is counted, lines or bytes, is between host and server."""
    selector: str | None = None
    """A CSS, XPath or JSONPath expression."""

    @model_validator(mode="after")
    def _forward_range(self) -> ResourceReference:
        if self.range_start is not None and self.range_end is not None and self.range_end < self.range_start:
            raise ValueError(f"`range_end` ({self.range_end}) is before `range_start` ({self.range_start})")
        return self


class PromptRequest(_Frozen):
    """A prompt that is to be rendered."""

    prompt_request_id: str
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    server_id: str | None = None


class PromptResult(_Frozen):
    """A rendered prompt: messages, or a short text."""

    prompt_request_id: str
    prompt_name: str
    messages: list[Message] = Field(default_factory=list)
    content: str | None = None
    is_error: bool = False
    error_message: str | None = None


class ImageSource(_Frozen):
    """An image, by address or included."""

    type: Literal["url", "base64"]
    data: str
    """The URL, or the base64 text; neither is checked."""
    media_type: str | None = None


class VideoSource(_Frozen):
    """A video, by address or included."""

    type: Literal["url", "base64"]
    data: str
    media_type: str | None = None
    duration_ms: int | None = None
    """Milliseconds."""


class AudioSource(_Frozen):
    """A sound, by address or included."""

    type: Literal["url", "base64"]
    data: str
    media_type: str | None = None
    duration_ms: int | None = None
    """Milliseconds."""


class DocumentSource(_Frozen):
    """A document, by address or included."""

    type: Literal["url", "base64"]
    data: str
    media_type: str | None = None
    title: str | None = None


class ContentPart(_Frozen):
    """Base class of all parts. A message takes only the twelve kinds below it, and opaque ones."""

    content_type: ContentType


class TextContent(ContentPart):
    """Text that is said."""

    content_type: Literal[ContentType.TEXT] = ContentType.TEXT
    text: str


class ThinkingContent(ContentPart):
    """Text that a model thinks before it speaks."""

    content_type: Literal[ContentType.THINKING] = ContentType.THINKING
    text: str


class ToolCallContentPart(ContentPart):
    """A part that calls a tool."""

    content_type: Literal[ContentType.TOOL_CALL] = ContentType.TOOL_CALL
    content: ToolCall


class ToolResultContentPart(ContentPart):
    """A part that brings a tool's answer."""

    content_type: Literal[ContentType.TOOL_RESULT] = ContentType.TOOL_RESULT
    content: ToolResult


class ResourceContentPart(ContentPart):
    """A part that includes a resource."""

    content_type: Literal[ContentType.RESOURCE] = ContentType.RESOURCE
    content: Resource


class ResourceRefContentPart(ContentPart):
    """A part that refers to a resource."""

    content_type: Literal[ContentType.RESOURCE_REF] = ContentType.RESOURCE_REF
    content: ResourceReference


class PromptRequestContentPart(ContentPart):
    """A part that asks for a prompt."""

    content_type: Literal[ContentType.PROMPT_REQUEST] = ContentType.PROMPT_REQUEST
    content: PromptRequest


class PromptResultContentPart(ContentPart):
    """A part that brings a rendered prompt."""

    content_type: Literal[ContentType.PROMPT_RESULT] = ContentType.PROMPT_RESULT
    content: PromptResult


class ImageContentPart(ContentPart):
    """A part that shows an image."""

    content_type: Literal[ContentType.IMAGE] = ContentType.IMAGE
    content: ImageSource


class VideoContentPart(ContentPart):
    """A part that shows a video."""

    content_type: Literal[ContentType.VIDEO] = ContentType.VIDEO
    content: VideoSource


class AudioContentPart(ContentPart):
    """A part that plays a sound."""

    content_type: Literal[ContentType.AUDIO] = ContentType.AUDIO
    content: AudioSource


class DocumentContentPart(ContentPart):
    """A part that carries a document."""

    content_type: Literal[ContentType.DOCUMENT] = ContentType.DOCUMENT
    content: DocumentSource


class OpaqueContentPart(ContentPart):
    """A part of a kind that this version does not know, with all that it holds in `model_extra`.

    Read only where unknown things are to be kept. It has no view, so plugins that look at messages through views refuse
    it; texts are found and replaced in it as in any part.
    """

    # mypy: the base says which kinds there are, and this one is none of them.
    content_type: str  # type: ignore[assignment]

    def model_post_init(self, context: Any, /) -> None:
        """Keep everything."""

    @model_validator(mode="after")
    def _is_unknown(self) -> Self:
        if self.content_type in ContentType._value2member_map_:
            raise ValueError(f"`{self.content_type}` is a known kind of part; use its own class")
        return self


_OPAQUE = "opaque"


def _kind_of(part: Any) -> str | None:
    """The kind of a part, or of a dict that is to become one; `None` is refused by pydantic, with its place."""
    if isinstance(part, OpaqueContentPart):
        return _OPAQUE
    kind = part.get("content_type") if isinstance(part, dict) else getattr(part, "content_type", None)
    if isinstance(kind, ContentType):
        return kind.value
    return kind if isinstance(kind, str) else None


def _keep_unknown_kind(part: Any, info: ValidationInfo) -> Any:
    if not isinstance(part, dict):
        return part
    kind = part.get("content_type")
    if not isinstance(kind, str) or kind in ContentType._value2member_map_:
        return part
    if _unknown(info.context) is Unknown.KEEP:
        # What it holds is not ours to judge, and a part that is kept keeps all.
        return OpaqueContentPart.model_validate(part, context=info.context)
    # SECURITY: the tag under which opaque parts are written is no kind that a message may come with.
    return {**part, "content_type": None} if kind == _OPAQUE else part


ContentPartUnion = Annotated[
    Annotated[TextContent, Tag("text")]
    | Annotated[ThinkingContent, Tag("thinking")]
    | Annotated[ToolCallContentPart, Tag("tool_call")]
    | Annotated[ToolResultContentPart, Tag("tool_result")]
    | Annotated[ResourceContentPart, Tag("resource")]
    | Annotated[ResourceRefContentPart, Tag("resource_ref")]
    | Annotated[PromptRequestContentPart, Tag("prompt_request")]
    | Annotated[PromptResultContentPart, Tag("prompt_result")]
    | Annotated[ImageContentPart, Tag("image")]
    | Annotated[VideoContentPart, Tag("video")]
    | Annotated[AudioContentPart, Tag("audio")]
    | Annotated[DocumentContentPart, Tag("document")]
    | Annotated[OpaqueContentPart, Tag(_OPAQUE)],
    Discriminator(_kind_of),
    BeforeValidator(_keep_unknown_kind),
]
"""Any part; for `pydantic.TypeAdapter` and for fields of other models."""


_VERSION = re.compile(r"2(\.[0-9]+)*")


class Message(_Frozen):
    """What one speaker says in one turn. Unknown keys are refused; extensions travel beside a message, not in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: str = "2.0"
    """Of the format; `2.` and any number."""
    role: Role
    content: list[ContentPartUnion] = Field(default_factory=list)
    channel: Channel | None = None

    @field_validator("schema_version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if not _VERSION.fullmatch(version):
            raise ValueError(f"schema version `{version[:20]}` is not understood; known: 2.0 and later 2.x")
        return version

    def iter_views(
        self, hook: str | None = None, extensions: Extensions | None = None, *, recursive: bool = False
    ) -> Iterator[MessageView]:
        """A view of each part, in order; see `cpex.framework.cmf.view.iter_views`."""
        from cpex.framework.cmf.view import iter_views

        return iter_views(self, hook, extensions, recursive=recursive)


# These name `Message` before it exists.
PromptResult.model_rebuild()
PromptResultContentPart.model_rebuild()
Message.model_rebuild()
