"""Functions that are always called through the guard, and functions that must not be called past it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cpex.framework.errors import GuardError
from cpex.framework.guard.calls import AGENT_SETTINGS
from cpex.framework.guard.coverage import Coverage, Ledger
from cpex.framework.guard.facts import Guarded
from cpex.framework.guard.operation import current_operation
from cpex.framework.guard.operations import AGENT, MODEL, PROMPT, RESOURCE, TOOL, Kind
from cpex.framework.guard.request import Request, current_request
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

__all__ = ["Arguments", "Call", "covered", "guarded"]

Function = TypeVar("Function", bound=Callable[..., Any])
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


class Arguments:
    """How the arguments of a function's call become `{argument: value}` for plugins, and what is left out of that."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Look at the signature.

        Raises:
            TypeError: An argument has no name that plugins could know it by, or the function gives its results one by
                one: plugins judge the whole.
        """
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"`{function.__qualname__}` gives its results one by one, and plugins judge the whole; let it return "
                "them as a list"
            )
        self._signature = inspect.signature(function)
        parameters = list(self._signature.parameters.values())
        self._owner = parameters[0].name if parameters and parameters[0].name in ("self", "cls") else None
        for each in parameters:
            if each.kind not in _NAMED:
                raise TypeError(
                    f"argument `{each.name}` of `{function.__qualname__}` has no name in calls, so plugins could not "
                    "see it; make it an ordinary argument"
                )

    @property
    def names(self) -> list[str]:
        """Names of the arguments that plugins see; of those that take any name, their own."""
        return [name for name in self._signature.parameters if name != self._owner]

    def split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The object that a method belongs to, and the arguments that plugins see, both by name.

        Raises:
            TypeError: The call does not fit the signature.
        """
        named = dict(self._signature.bind(*args, **kwargs).arguments)
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                named.update(named.pop(name, {}))
        owner = {self._owner: named.pop(self._owner)} if self._owner in named else {}
        return owner, named


class Call:
    """How a call of a decorated function becomes a call of a request, or of one without an event loop."""

    def __init__(self, function: Callable[..., Any], kind: Kind, name: str | None) -> None:
        """Look at the signature.

        Raises:
            TypeError: The function does not fit the kind; see `guarded`.
        """
        if kind not in _METHODS:
            named = ", ".join(each.name for each in _METHODS)
            raise TypeError(f"functions can be guarded as {named}, not as {kind.name}")
        self.name = name or function.__name__
        self._function = function
        self._arguments = Arguments(function)
        self._method = _METHODS[kind]
        self._is_named = kind in (TOOL, PROMPT, AGENT)
        self._first: str | None = None
        if kind in _BESIDE:
            self._first = self._only_first(kind, _BESIDE[kind])

    def _only_first(self, kind: Kind, beside: frozenset[str]) -> str:
        """The argument that flows."""
        names = self._arguments.names
        if names and beside.issuperset(names[1:]):
            return names[0]
        others = f", and beside it any of {', '.join(sorted(beside))}" if beside else " alone"
        raise TypeError(
            f"`{self._function.__qualname__}` cannot be guarded as {kind.name}: it must take {_TAKES[kind]} as its "
            f"first argument{others}"
        )

    def within(self, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the request's own method.

        Raises:
            TypeError: The call does not fit the signature.
        """
        owner, named = self._arguments.split(args, kwargs)
        perform = functools.partial(self._function, **owner) if owner else self._function
        method, name = getattr(request, self._method), [self.name] if self._is_named else []
        if (first := self._first) is None:
            return method(*name, named, perform)
        given = named.pop(first)

        def operate(ready: Any, **settings: Any) -> Any:
            return perform(**{first: ready}, **settings)

        return method(*name, given, operate, **named)


_METHODS: Mapping[Kind, str] = {
    TOOL: "call_tool",
    PROMPT: "get_prompt",
    RESOURCE: "read_resource",
    AGENT: "call_agent",
    MODEL: "call_model",
}
_BESIDE: Mapping[Kind, frozenset[str]] = {RESOURCE: frozenset(), AGENT: frozenset(AGENT_SETTINGS), MODEL: frozenset()}
"""Kinds whose first argument is what flows, and what may stand beside it."""
_TAKES: Mapping[Kind, str] = {RESOURCE: "an address", AGENT: "messages", MODEL: "messages"}


def guarded(
    manager: Guarded | None = None, kind: Kind = TOOL, *, name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function that is called through the guard, as a coroutine function.

        @guarded(manager)
        async def search(q: str) -> list[str]: ...

    It runs in the request that is open in the caller's context; without one, in a request of its own of `manager`.

    Args:
        manager: Without it a call outside of a request is an error.
        kind: `TOOL` or `PROMPT`, for functions of any arguments; `RESOURCE`, for one that takes an address; `AGENT`,
            for one that takes messages and perhaps `tools`, `model`, `system_prompt` and `parameters`; `MODEL`, for one
            that takes messages of the common format.
        name: What plugins know it by; the function's name unless given.

    Raises:
        TypeError: The function does not fit the kind, one of its arguments has no name, or it is a generator.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        bound = Call(function, kind, name)

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            request = current_request.get()
            if request is not None:
                return await bound.within(request, args, kwargs)
            if manager is None:
                raise GuardError(
                    f"`{bound.name}` was called outside of a request, so nothing would guard it; call it within "
                    "`async with manager.request(...)`, or decorate it with `@guarded(manager)`"
                )
            async with Request(manager) as own:
                return await bound.within(own, args, kwargs)

        return call

    return decorate


def covered(
    kind: Kind = TOOL, *, name: str | None = None, mode: CoverageMode = CoverageMode.RAISE
) -> Callable[[Function], Function]:
    """Mark a function that must not run past the guard: outside of an operation of its kind, a call is a gap.

    For what tools are made of, such as the client that reaches a database. The function itself is not guarded.

    Args:
        name: What errors and the ledger call it; the function's name unless given.
        mode: What follows where no request is open, whose own coverage would say.
    """
    first = kind.before[0].hook
    alone = Coverage(CoverageConfig(mode=mode, mandatory=[first]))

    def decorate(function: Function) -> Function:
        known_as = name or function.__name__

        def check() -> None:
            operation = current_operation.get()
            if operation is not None and operation.kind is kind:
                return
            request = current_request.get()
            ledger = request.ledger if request is not None and request.ledger.coverage.of(kind) else Ledger(alone)
            ledger.bypassed(known_as, kind, known_as)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call(*args: Any, **kwargs: Any) -> Any:
                check()
                return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                check()
                return function(*args, **kwargs)

        # mypy: a wrapper has the signature of what it wraps.
        return call  # type: ignore[return-value]

    return decorate
