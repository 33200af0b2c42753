"""Read-only views: one shape for whatever a part of a message is, so that a policy is written once.

A view holds references to the part, its message and the extensions, and computes everything when it is asked. Nothing
is checked here: what extensions show has been decided by whoever filtered them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from cpex.framework.cmf.edit import Place, place_name, with_part, with_text
from cpex.framework.cmf.facts import RequestFacts
from cpex.framework.cmf.forms import opa_input, view_dict
from cpex.framework.cmf.kinds import KINDS, utf8_length
from cpex.framework.cmf.message import ContentPart, Message, Role
from cpex.framework.cmf.readonly import read_only
from cpex.framework.cmf.text import TextLeaf, iter_text

if TYPE_CHECKING:
    # Views are made with and without extensions; they are only loaded by those who have some.
    from cpex.framework.extensions import Extensions
    from cpex.framework.extensions.security import DataPolicy, ObjectSecurityProfile

__all__ = ["MessageView", "ViewAction", "ViewKind", "iter_views"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ViewKind(str, Enum):
    """The kinds of view: one for each `ContentType`, of the same name."""

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


class ViewAction(str, Enum):
    """What a part does."""

    READ = "read"
    WRITE = "write"
    """A resource that stands before its hook: its content is about to be written."""
    EXECUTE = "execute"
    INVOKE = "invoke"
    SEND = "send"
    RECEIVE = "receive"
    GENERATE = "generate"


_BY_ROLE = {
    Role.SYSTEM: (ViewAction.SEND, True),
    Role.DEVELOPER: (ViewAction.SEND, True),
    Role.USER: (ViewAction.SEND, True),
    Role.ASSISTANT: (ViewAction.GENERATE, False),
    Role.TOOL: (ViewAction.RECEIVE, False),
}
"""Action, and whether it stands before the operation, of parts that do what their speaker does."""
_BEFORE_RESOURCES = frozenset({"resource_pre_fetch", "cmf.resource_pre_fetch"})
_VIEW_KINDS = {kind.value: kind for kind in ViewKind}


class MessageView(RequestFacts):
    """One part of a message, seen as kind, text, address, name, arguments and context."""

    __slots__ = ("_facts", "_hook", "_kind", "_message", "_part", "_place", "_root")

    def __init__(
        self,
        part: ContentPart,
        kind: ViewKind,
        message: Message,
        hook: str | None = None,
        extensions: Extensions | None = None,
        *,
        root: Message | None = None,
        place: Place = (),
    ) -> None:
        """Look at a part; `iter_views` does it for whole messages.

        Args:
            message: The message that holds the part.
            root: The message that `place` starts from. Without a place, the view does not know where its part stands.
        """
        super().__init__(extensions)
        self._part = part
        self._kind = kind
        self._facts = KINDS[kind.value]
        self._message = message
        self._hook = hook
        self._root = message if root is None else root
        self._place = place

    def __repr__(self) -> str:
        parts = [f"kind={self.kind.value}", f"role={self.role.value}", "pre" if self.is_pre else "post"]
        if self.uri:
            parts.append(f"uri={self.uri}")
        if self._hook:
            parts.append(f"hook={self._hook}")
        return f"MessageView({', '.join(parts)})"

    # The part.

    @property
    def kind(self) -> ViewKind:
        """The kind of the part."""
        return self._kind

    @property
    def role(self) -> Role:
        """Who says it."""
        return Role(self._message.role)

    @property
    def hook(self) -> str | None:
        """The hook that was named when the view was made."""
        return self._hook

    @property
    def raw(self) -> ContentPart:
        """The part itself."""
        return self._part

    @property
    def content(self) -> str | None:
        r"""The text of the part; arguments and results that are no text as JSON with ASCII escapes (`\u00e9`).

        `None` for references, media, bytes, and results without a value.
        """
        return self._facts.content(self._part, ensure_ascii=True)

    @property
    def text(self) -> str | None:
        """The same with all characters as they are, which is what patterns for other scripts need."""
        return self._facts.content(self._part, ensure_ascii=False)

    @property
    def uri(self) -> str | None:
        """The address: of a resource its own, else `tool://<namespace>/<name>` and the like; `None` for text and media.

        Names are put in as they are. Compare addresses with `matches_uri_pattern`, or compare `canonical_uri`.
        """
        return self._facts.uri(self._part)

    @property
    def canonical_uri(self) -> str | None:
        """The address in the one spelling that patterns are compared with."""
        return self._facts.address(self._part)

    @property
    def name(self) -> str | None:
        """The name of the tool, prompt or resource."""
        return self._facts.name(self._part)

    @property
    def action(self) -> ViewAction:
        """What the part does."""
        if self._is_written:
            return ViewAction.WRITE
        fixed = self._facts.action
        return ViewAction(fixed) if fixed is not None else _BY_ROLE[self.role][0]

    @property
    def args(self) -> dict[str, Any] | None:
        """The arguments of a tool call or prompt request, in containers that refuse edits with a `TypeError`.

        What they hold beside dicts, lists and tuples is the message's own.
        """
        args: dict[str, Any] | None = read_only(self._facts.args(self._part))
        return args

    @property
    def mime_type(self) -> str | None:
        """The type of a resource's or medium's data."""
        return self._facts.mime_type(self._part)

    @property
    def size_bytes(self) -> int | None:
        """Bytes: what a resource says of itself, else the UTF-8 length of `content`, else the length of the blob.

        What a resource says need not be true; `measured_bytes` believes nothing.
        """
        return self._facts.size_bytes(self._part)

    @property
    def measured_bytes(self) -> int | None:
        """Bytes that are there: the UTF-8 length of `content`, else the length of the blob; `None` without either."""
        if (content := self.content) is not None:
            return utf8_length(content)
        blob = getattr(getattr(self._part, "content", None), "blob", None)
        return len(blob) if blob is not None else None

    @property
    def properties(self) -> dict[str, Any]:
        """What only parts of this kind have: `{name: value}`, in a dict of its own; annotations refuse edits."""
        return {name: read_only(value) for name, value in self._facts.properties(self._part).items()}

    @property
    def index(self) -> int | None:
        """Position of the part in its message; `None` for a view that was made by hand."""
        return self._place[-1] if self._place else None

    @property
    def path(self) -> str:
        """Where the part stands, as `content[1].content.messages[0].content[2]`; empty for a view made by hand."""
        return place_name(self._place)

    @property
    def is_pre(self) -> bool:
        """Whether the part stands before its operation: it asks for something."""
        if self._is_written:
            return True
        fixed = self._facts.is_pre
        return fixed if fixed is not None else _BY_ROLE[self.role][1]

    @property
    def is_post(self) -> bool:
        """Whether the part stands after its operation: it brings something."""
        return not self.is_pre

    @property
    def _is_written(self) -> bool:
        # What is read does not exist before it is read: a resource with its content is there to be written.
        return self._kind is ViewKind.RESOURCE and self._hook in _BEFORE_RESOURCES

    @property
    def is_tool(self) -> bool:
        """Whether it is a tool's call or result."""
        return self._kind in (ViewKind.TOOL_CALL, ViewKind.TOOL_RESULT)

    @property
    def is_prompt(self) -> bool:
        """Whether it is a prompt's request or result."""
        return self._kind in (ViewKind.PROMPT_REQUEST, ViewKind.PROMPT_RESULT)

    @property
    def is_resource(self) -> bool:
        """Whether it is a resource or a reference to one."""
        return self._kind in (ViewKind.RESOURCE, ViewKind.RESOURCE_REF)

    @property
    def is_text(self) -> bool:
        """Whether it is said or thought text."""
        return self._kind in (ViewKind.TEXT, ViewKind.THINKING)

    @property
    def is_media(self) -> bool:
        """Whether it is an image, video, sound or document."""
        return self._kind in (ViewKind.IMAGE, ViewKind.VIDEO, ViewKind.AUDIO, ViewKind.DOCUMENT)

    def has_content(self) -> bool:
        """Whether there is a text, be it empty."""
        return self.content is not None

    def get_arg(self, name: str, default: Any = None) -> Any:
        """One argument; `default` only when there is none of that name."""
        return read_only((self._facts.args(self._part) or {}).get(name, default))

    def has_arg(self, name: str) -> bool:
        """Whether there is an argument of that name."""
        return name in (self._facts.args(self._part) or {})

    def get_property(self, name: str, default: Any = None) -> Any:
        """One of `properties`; `default` only when there is none of that name."""
        return self.properties.get(name, default)

    def matches_uri_pattern(self, pattern: str) -> bool:
        """Whether a pattern covers the whole address; never, for a part without one.

        `*` stands for any run of characters but slashes, `**` for any run at all. Case counts, but not in the scheme
        and host of a resource's address. See `cpex.framework.cmf.uri`.
        """
        address = self.canonical_uri
        return bool(address) and self._facts.pattern(pattern).matches(address or "")

    def iter_text(self) -> Iterator[TextLeaf]:
        """Every text in the part, at any depth: arguments, names, annotations, media, messages of a prompt's result.

        Paths start from the message that the views were made of.
        """
        return iter_text(self._part, self.path)

    # Changes.

    def replace(self, part: ContentPart) -> Message:
        """The message that the views were made of, with another part in this one's place.

        Raises:
            TypeError: `part` is no content part.
            ValueError: The view was made by hand.
        """
        if not self._place:
            raise ValueError("the view does not know its place in the message; make it with `iter_views`")
        return with_part(self._root, self._place, part)

    def replace_text(self, text: str) -> Message:
        """The same with another text in this part, for text, results and resources.

        Raises:
            TypeError: Parts of this kind have no text of their own, or `text` is none.
            ValueError: The view was made by hand.
        """
        return self.replace(with_text(self._part, text))

    @property
    def object(self) -> ObjectSecurityProfile | None:
        """The security profile of what the part names: by its address, by `<namespace>/<name>`, by its bare name."""
        return self._entry(self._security.objects) if self._security is not None else None

    @property
    def data_policy(self) -> DataPolicy | None:
        """The data policy of what the part names, found like `object`."""
        return self._entry(self._security.data) if self._security is not None else None

    def _entry(self, table: Mapping[str, T]) -> T | None:
        scope = self._facts.scope(self._part)
        keys = (self.uri, f"{scope}/{self.name}" if scope else None, self.name)
        return next((table[key] for key in keys if key and key in table), None)

    # Plain data.

    def to_dict(
        self,
        include_content: bool = True,
        include_context: bool = True,
        *,
        include_arguments: bool = True,
        ensure_ascii: bool = True,
    ) -> dict[str, Any]:
        """The view as a dict; entries that are empty are left out, headers with credentials always.

        Keys: `kind`, `role`, `is_pre`, `is_post`, `action`, `hook`, `uri`, `name`, `content`, `size_bytes`,
        `mime_type`, `arguments`, `properties`, `extensions`. Arguments and annotations refuse edits, and are JSON or
        not.

        Args:
            include_content: Whether to tell text and size.
            include_context: Whether to tell what the extensions say.
            include_arguments: Whether to tell arguments and annotations.
            ensure_ascii: Whether JSON text is written with escapes, as in `content`, or without, as in `text`.
        """
        return view_dict(
            self,
            include_content=include_content,
            include_context=include_context,
            include_arguments=include_arguments,
            ensure_ascii=ensure_ascii,
        )

    def to_opa_input(
        self, include_content: bool = True, *, include_arguments: bool = True, ensure_ascii: bool = True
    ) -> dict[str, Any]:
        """`{"input": ...}` around `to_dict`, for Open Policy Agent. Always JSON: what has no JSON form becomes text."""
        return opa_input(
            self, include_content=include_content, include_arguments=include_arguments, ensure_ascii=ensure_ascii
        )


def iter_views(
    message: Message, hook: str | None = None, extensions: Extensions | None = None, *, recursive: bool = False
) -> Iterator[MessageView]:
    """A view of each part of a message, in order, made while it is iterated.

    Args:
        hook: Kept in the views; not interpreted.
        extensions: What the views tell of the request.
        recursive: Whether the messages inside a prompt's result follow that result, at any depth. A message that
            contains itself is not entered again.

    Raises:
        ValueError: A part is of no known kind.
    """
    walks = [_Walk(message, (), None)]
    while walks:
        walk = walks[-1]
        for index, part in walk.parts:
            place = (*walk.place, index)
            kind = _kind_of(part)
            yield MessageView(part, kind, walk.message, hook, extensions, root=message, place=place)
            if recursive and kind is ViewKind.PROMPT_RESULT:
                walks.extend(reversed(walk.nested(part, place)))
                break
        else:
            walks.pop()


class _Walk:
    """A message whose parts are being looked at."""

    __slots__ = ("message", "outer", "parts", "place")

    def __init__(self, message: Message, place: Place, outer: _Walk | None) -> None:
        self.message = message
        self.place = place
        self.outer = outer
        self.parts = iter(enumerate(message.content))

    def nested(self, part: Any, place: Place) -> list[_Walk]:
        """The messages inside a part, but for those that the part is inside of."""
        return [
            _Walk(message, (*place, index), self)
            for index, message in enumerate(part.content.messages)
            if not self.inside(message)
        ]

    def inside(self, message: Message) -> bool:
        walk: _Walk | None = self
        while walk is not None:
            if walk.message is message:
                return True
            walk = walk.outer
        return False


def _kind_of(part: ContentPart) -> ViewKind:
    kind = _VIEW_KINDS.get(getattr(part.content_type, "value", part.content_type))
    if kind is None:
        logger.warning("A message holds a part of unknown content type %r", part.content_type)
        raise ValueError(f"unknown content type `{part.content_type}`; known: {', '.join(_VIEW_KINDS)}")
    return kind
