"""What a plugin is, and how the framework refers to one and to its handlers.

`Plugin` is what authors derive from. `PluginRef` ties an instance to the configuration the operator wrote, which is the
only one that the framework trusts. `HookRef` is one handler of one plugin for one hook, resolved and checked once, at
registration.
"""

from __future__ import annotations

import difflib
import inspect
import uuid
from abc import ABC
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from types import MethodType
from typing import Any, ClassVar, get_type_hints
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from cpex.framework.decorator import get_hook_metadata
from cpex.framework.errors import PluginError
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.models.config import PluginCondition, PluginConfig
from cpex.framework.models.mode import OnError, PluginMode
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult

__all__ = ["HookRef", "Plugin", "PluginRef"]

Handler = Callable[..., Awaitable[Any]]


def hook_name(hook_type: str) -> str:
    """The plain string of a hook type, which may be given as an enum member."""
    return str(hook_type.value) if isinstance(hook_type, Enum) else hook_type


class Plugin(ABC):  # noqa: B024  # a plugin may well consist of decorated handlers only; nothing is abstract
    """Base class of all plugins.

    A plugin has an async method for each hook that its configuration lists: named like the hook, or marked with
    `@hook`. It takes `(payload, context)` or `(payload, context, extensions)` and returns a `PluginResult`.

    A plugin may define `async hook_completed(outcome: HookOutcome)`. It is called in the background once for each hook
    call in which the plugin ran, after the decision; with the class attribute `observes_all = True`, for every call.
    """

    observes_all: bool = False
    settings_model: ClassVar[type[BaseModel] | None] = None
    """What the plugin checks `config.config` with: by it `cpex schema` tells editors what may stand below `config:`."""

    def __init__(
        self,
        config: PluginConfig,
        hook_payloads: dict[str, type[PluginPayload]] | None = None,
        hook_results: dict[str, type[PluginResult[Any]]] | None = None,
    ) -> None:
        """Keep the configuration; validate `config.config` here, so that bad settings stop the start."""
        self._config = config
        self._hook_payloads = hook_payloads
        self._hook_results = hook_results

    @property
    def priority(self) -> int:
        """Lower runs earlier within a phase."""
        return self._config.priority

    @property
    def config(self) -> PluginConfig:
        """The plugin's own copy of its configuration; the framework reads another."""
        return self._config

    @property
    def mode(self) -> PluginMode:
        """The phase that the plugin runs in."""
        return self._config.mode

    @property
    def name(self) -> str:
        """The configured name, unique within a manager."""
        return self._config.name

    @property
    def hooks(self) -> list[str]:
        """Names of the hooks that the configuration lists."""
        return self._config.hooks

    @property
    def tags(self) -> list[str]:
        """Free labels from the configuration."""
        return self._config.tags

    @property
    def conditions(self) -> list[PluginCondition]:
        """When the plugin runs; empty means always."""
        return self._config.conditions

    # B027, here and below: most plugins have nothing to acquire, so these do nothing rather than be abstract.
    async def initialize(self) -> None:  # noqa: B027
        """Acquire what the plugin needs. May be called more than once; make it idempotent."""

    # As above.
    async def shutdown(self) -> None:  # noqa: B027
        """Release it. May be called more than once; make it idempotent."""

    def json_to_payload(self, hook: str, payload: str | dict[str, Any]) -> PluginPayload:
        """Build a hook's payload from JSON text or a dict.

        Raises:
            PluginError: No payload class is known for the hook.
            pydantic.ValidationError: The data does not fit it.
        """
        cls = (self._hook_payloads or {}).get(hook) or get_hook_registry().get_payload_type(hook)
        if cls is None:
            raise self._unknown_hook("payload", hook)
        converted: PluginPayload = _from_json(cls, payload)
        return converted

    def json_to_result(self, hook: str, result: str | dict[str, Any]) -> PluginResult[Any]:
        """Build a hook's result from JSON text or a dict.

        Raises:
            PluginError: No result class is known for the hook.
            pydantic.ValidationError: The data does not fit it.
        """
        cls = (self._hook_results or {}).get(hook) or get_hook_registry().get_result_type(hook)
        if cls is None:
            raise self._unknown_hook("result", hook)
        converted: PluginResult[Any] = _from_json(cls, result)
        return converted

    def _unknown_hook(self, what: str, hook: str) -> PluginError:
        message = f"No {what} defined for hook {hook_name(hook)} of plugin {self.name}"
        return PluginError(PluginErrorModel(message=message, plugin_name=self.name))


def _from_json(cls: Any, data: str | dict[str, Any]) -> Any:
    return cls.model_validate_json(data) if isinstance(data, str) else cls.model_validate(data)


class PluginRef:
    """One registered plugin. Everything that decides about it comes from the trusted configuration."""

    def __init__(self, plugin: Plugin, trusted_config: PluginConfig | None = None) -> None:
        """Tie a plugin to its configuration.

        Raises:
            ValueError: Its `mode` or `on_error` is none that there is.
        """
        self._plugin = plugin
        # SECURITY: phases and failures go by members; a guard whose mode is a mere text would be in no phase.
        self._trusted_config = (trusted_config if trusted_config is not None else plugin.config).with_members()
        self._uuid = uuid.uuid4().hex

    @property
    def plugin(self) -> Plugin:
        """The instance."""
        return self._plugin

    @property
    def trusted_config(self) -> PluginConfig:
        """What the operator wrote."""
        return self._trusted_config

    @property
    def uuid(self) -> str:
        """32 hexadecimal digits, new with every registration."""
        return self._uuid

    @property
    def name(self) -> str:
        """The trusted name."""
        return self._trusted_config.name

    @property
    def priority(self) -> int:
        """Lower runs earlier within a phase."""
        return self._trusted_config.priority

    @property
    def hooks(self) -> list[str]:
        """Names of the hooks that the plugin is registered for."""
        return self._trusted_config.hooks

    @property
    def tags(self) -> list[str]:
        """Free labels."""
        return self._trusted_config.tags

    @property
    def conditions(self) -> list[PluginCondition]:
        """When the plugin runs; empty means always."""
        return self._trusted_config.conditions

    @property
    def mode(self) -> PluginMode:
        """The phase that the plugin runs in."""
        return self._trusted_config.mode

    @property
    def on_error(self) -> OnError:
        """What a failure of the plugin means for the call."""
        return self._trusted_config.on_error

    @property
    def capabilities(self) -> frozenset[str]:
        """Which extension slots the plugin may read and write."""
        return self._trusted_config.capabilities


class HookRef:
    """One handler: which plugin, which hook, and the coroutine function to call."""

    def __init__(self, hook: str, plugin_ref: PluginRef) -> None:
        """Resolve and check the handler.

        Raises:
            PluginError: The plugin has no handler for the hook, or one that cannot be called as a handler.
        """
        self._hook = hook_name(hook)
        self._plugin_ref = plugin_ref
        handler = _find_handler(plugin_ref.plugin, self._hook)
        if handler is None:
            raise _hook_error(plugin_ref, _no_handler_text(plugin_ref, self._hook))
        self._func, self._accepts_extensions = _check_handler(handler, self._hook, plugin_ref)

    @property
    def plugin_ref(self) -> PluginRef:
        """The plugin that the handler belongs to."""
        return self._plugin_ref

    @property
    def name(self) -> str:
        """The hook's name."""
        return self._hook

    @property
    def hook(self) -> Handler:
        """The bound coroutine function."""
        return self._func

    @property
    def accepts_extensions(self) -> bool:
        """Whether the handler takes a third argument."""
        return self._accepts_extensions

    def _validate_type_hints(
        self, hook: str, func: Callable[..., Any], params: Sequence[inspect.Parameter], plugin_name: str
    ) -> None:
        """Hold a handler's annotations against the classes that are registered for a hook.

        The pipeline does not ask for annotations; this is for authors and test suites that do. A hook that is not
        registered and annotations that cannot be resolved are left alone.

        Args:
            params: The handler's parameters without `self`, payload first.

        Raises:
            PluginError: The payload or the result is not annotated, or the name of its class is not in the annotation.
        """
        payload, result = get_hook_registry().get_payload_type(hook), get_hook_registry().get_result_type(hook)
        try:
            hints = get_type_hints(func)
        # Resolving a hint runs whatever the author has written as one.
        except Exception:
            return
        if payload is None or result is None or not params:
            return
        what, first = f"Plugin '{plugin_name}' hook '{hook_name(hook)}'", params[0].name
        for name, expected, missing, wrong in (
            (
                first,
                payload,
                f"missing type hint for parameter '{first}'",
                f"parameter '{first}' has incorrect type hint",
            ),
            ("return", result, "missing return type hint", "has incorrect return type hint"),
        ):
            if name not in hints:
                raise _hook_error(self._plugin_ref, f"{what} {missing}; annotate it with {expected.__name__}")
            if hints[name] is not expected and expected.__name__ not in str(hints[name]):
                text = f"{what} {wrong} {hints[name]}; annotate it with {expected.__name__}"
                raise _hook_error(self._plugin_ref, text)


def _find_handler(plugin: Plugin, hook: str) -> Handler | None:
    """The method of that name, else the first in alphabetical order that is marked with the hook."""
    named = getattr(plugin, hook, None)
    if named is not None and not isinstance(getattr(type(plugin), hook, None), property):
        if not callable(named):
            raise TypeError(f"attribute {hook!r} of plugin {type(plugin).__name__} is not callable")
        found: Handler = named
        return found
    return next((method for method, hooks in marked_methods(plugin) if hook in hooks), None)


def marked_methods(plugin: Plugin) -> Iterator[tuple[Handler, list[str]]]:
    """Public methods marked with `@hook`, in alphabetical order, each with the plain names of its hooks."""
    for name in dir(type(plugin)):
        if name.startswith("_"):
            continue
        declared = inspect.getattr_static(type(plugin), name)
        metadata = get_hook_metadata(declared) if inspect.isfunction(declared) else None
        if metadata is not None:
            yield getattr(plugin, name), [hook_name(each) for each in metadata.hook_types]


def _no_handler_text(ref: PluginRef, hook: str) -> str:
    known = {str(hook_name(each)) for each in get_hook_registry().get_registered_hooks()}
    known |= {each for _, hooks in marked_methods(ref.plugin) for each in hooks}
    known |= {name for name in dir(type(ref.plugin)) if not name.startswith("_")}
    # A hook that others handle is known, and still no answer to the question which one was meant.
    close = difflib.get_close_matches(hook, sorted(known - set(dir(Plugin)) - {hook}), n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"Plugin '{ref.name}' has no hook '{hook}': {type(ref.plugin).__name__} has neither an async method of that "
        f"name nor one marked with @hook{hint}"
    )


class _Form(Enum):
    """How a handler is called."""

    TWO = "payload, context"
    THREE = "payload, context, extensions"
    KEYWORD = "payload, context, extensions=extensions"


# Inspecting a signature is the dearest part of a registration, and a thousand plugins may share one class.
_known_forms: WeakKeyDictionary[Any, _Form] = WeakKeyDictionary()


def _check_handler(handler: Handler, hook: str, ref: PluginRef) -> tuple[Handler, bool]:
    """The function to call with two or three positional arguments, and whether it takes the third."""
    function = handler.__func__ if isinstance(handler, MethodType) else None
    form = _known_forms.get(function) if function is not None else None
    if form is None:
        form = _form_of(handler, hook, ref)
        if function is not None:
            _known_forms[function] = form
    return (_by_keyword(handler) if form is _Form.KEYWORD else handler), form is not _Form.TWO


def _form_of(handler: Handler, hook: str, ref: PluginRef) -> _Form:
    where = f"Plugin '{ref.name}' hook '{hook}'"
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError) as error:
        raise _hook_error(ref, f"{where} has an invalid signature: {error}") from error
    expected = "expected (payload, context) or (payload, context, extensions)"
    if len(signature.parameters) not in (2, 3):
        raise _hook_error(ref, f"{where} has an invalid signature {signature}; {expected}")
    if not inspect.iscoroutinefunction(handler):
        raise _hook_error(ref, f"{where} must be async: declare it with `async def`")
    if len(signature.parameters) == 3 and _binds(signature, 3):
        return _Form.THREE
    if len(signature.parameters) == 3 and "extensions" in signature.parameters and _binds(signature, 2, "extensions"):
        return _Form.KEYWORD
    if not _binds(signature, 2):
        raise _hook_error(ref, f"{where} has an invalid signature {signature}; {expected}")
    return _Form.TWO


def _binds(signature: inspect.Signature, count: int, *names: str) -> bool:
    try:
        signature.bind(*([None] * count), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def _by_keyword(handler: Handler) -> Handler:
    """Adapt a handler whose third parameter is keyword-only."""

    async def call(payload: Any, context: Any, extensions: Any) -> Any:
        return await handler(payload, context, extensions=extensions)

    return call


def _hook_error(ref: PluginRef, message: str) -> PluginError:
    return PluginError(PluginErrorModel(message=message, plugin_name=ref.name))


def completion_handler(plugin: Plugin) -> Handler | None:
    """The plugin's `hook_completed`, when it has an async one.

    Raises:
        PluginError: It has one that is not async.
    """
    handler = getattr(plugin, "hook_completed", None)
    if handler is None:
        return None
    if not inspect.iscoroutinefunction(handler):
        raise PluginError(
            PluginErrorModel(message=f"Plugin '{plugin.name}' hook_completed must be async", plugin_name=plugin.name)
        )
    found: Handler = handler
    return found
