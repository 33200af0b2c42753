"""Functions that are always called through the guard, and functions that must not be called past it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cpex.framework.errors import GuardError
from cpex.framework.guard.facts import Guarded
from cpex.framework.guard.ledger import Coverage, Ledger
from cpex.framework.guard.operation import current_operation
from cpex.framework.guard.operations import PROMPT, TOOL, Kind
from cpex.framework.guard.request import Request, current_request
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

__all__ = ["Arguments", "covered", "guarded"]

Function = TypeVar("Function", bound=Callable[..., Any])
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
_CALLS: Mapping[str, str] = {TOOL.name: "call_tool", PROMPT.name: "get_prompt"}


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


def guarded(
    manager: Guarded | None = None, kind: Kind = TOOL, *, name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function that is called through the guard, as a coroutine function.

        @guarded(manager)
        async def search(q: str) -> list[str]: ...

    It runs in the request that is open in the caller's context; without one, in a request of its own of `manager`.

    Args:
        manager: Without it a call outside of a request is an error.
        kind: `TOOL` or `PROMPT`.
        name: What plugins know it by; the function's name unless given.

    Raises:
        TypeError: The kind has no arguments by name, one of the function's has none, or it is a generator.
    """
    if kind.name not in _CALLS:
        raise TypeError(f"functions can be guarded as {' or '.join(_CALLS)}, not as {kind.name}")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        arguments = Arguments(function)
        known_as = name or function.__name__

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            owner, named = arguments.split(args, kwargs)
            perform = functools.partial(function, **owner) if owner else function
            request = current_request.get()
            if request is not None:
                return await getattr(request, _CALLS[kind.name])(known_as, named, perform)
            if manager is None:
                raise GuardError(
                    f"`{known_as}` was called outside of a request, so nothing would guard it; call it within "
                    "`async with manager.request(...)`, or decorate it with `@guarded(manager)`"
                )
            async with Request(manager) as own:
                return await getattr(own, _CALLS[kind.name])(known_as, named, perform)

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
