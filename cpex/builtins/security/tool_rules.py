"""Which tools somebody may invoke: lists of names and globs, for everybody or for some tenants and servers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, model_validator

from cpex.builtins.globs import glob_matcher

__all__ = ["ToolLists", "ToolRule"]


class ToolRule(BaseModel, extra="forbid", frozen=True):
    """Lists that hold for some tenants, some servers, or some tenants on some servers."""

    tenants: list[str] = []
    """Globs of tenant ids; empty means any, also none."""
    servers: list[str] = []
    """Globs of server ids; empty means any, also none."""
    allowed_tools: list[str] = []
    """What may be invoked; empty means everything that is not denied."""
    denied_tools: list[str] = []
    """What may not, whatever `allowed_tools` says."""

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if not self.tenants and not self.servers:
            raise ValueError("a rule says for whom it is; give it `tenants` or `servers`, or use the general lists")
        if not self.allowed_tools and not self.denied_tools:
            raise ValueError("a rule without any list allows everything; write `allowed_tools: ['*']` for that")
        return self


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule, ready to be asked."""

    tenants: Callable[[str], Any] | None
    servers: Callable[[str], Any] | None
    allowed: Callable[[str], Any] | None
    denied: Callable[[str], Any]

    def applies(self, tenant: str | None, server: str | None) -> bool:
        return _fits(self.tenants, tenant) and _fits(self.servers, server)


def _fits(matcher: Callable[[str], Any] | None, name: str | None) -> bool:
    return matcher is None or (name is not None and bool(matcher(name)))


class ToolLists:
    """The general lists and the rules, compiled. Immutable."""

    def __init__(self, allowed: Iterable[str], denied: Iterable[str], rules: Iterable[ToolRule] = ()) -> None:
        """Compile the lists; earlier rules go before later ones."""
        self._denied = glob_matcher(denied)
        self._rules = [_compiled(rule) for rule in rules]
        allowed = list(allowed)
        self._allowed = glob_matcher(allowed) if allowed else None
        # SECURITY: whoever writes rules for some has not thereby allowed everything to all others.
        self._closed = bool(self._rules) and not allowed

    def refusal(self, tool: str, tenant: str | None, server: str | None) -> str | None:
        """Which list keeps a tool from being invoked, in words; `None` when it may be."""
        if self._denied(tool):
            return "is on the deny list"
        rule = next((rule for rule in self._rules if rule.applies(tenant, server)), None)
        if rule is not None and rule.denied(tool):
            return "is on the deny list"
        allowed = rule.allowed if rule is not None else self._allowed
        if (rule is None and self._closed) or (allowed is not None and not allowed(tool)):
            return "not in allow list"
        return None


def _compiled(rule: ToolRule) -> _Rule:
    tenants, servers, allowed = (
        glob_matcher(globs) if globs else None for globs in (rule.tenants, rule.servers, rule.allowed_tools)
    )
    return _Rule(tenants, servers, allowed, glob_matcher(rule.denied_tools))
