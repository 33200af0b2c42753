"""Which halves belong together: the pre and post hook of one operation, and each hook's turn and decision.

A hook call reaches an observer in two halves, the plugin's own turn and the decision, in any order and either of them
possibly missing; an operation is a pre and a post hook. `Operations` finds the operation that a half belongs to, and
`is_over` says when it has ended. Both go by the request rather than by the plugin's context, because a decision comes
without a context, and a background plugin writes into a copy of it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from cpex.framework import clock

Half = Literal["turn", "decision"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """Halves with the same key may belong to one operation."""

    request_id: str
    family: str
    """Name of the hook without the word that tells pre from post."""
    entity: str | None


@dataclass(eq=False, slots=True)
class Operation(Generic[T]):
    """One operation that is not over yet."""

    key: Key
    value: T
    """What the observer keeps for it."""
    opened_at: float
    """Monotonic seconds."""
    seen: set[tuple[str, Half]] = field(default_factory=set)
    ended_by: set[str] = field(default_factory=set)
    """Hooks whose decision ended the operation, by denying or failing it."""


def family_of(hook: str) -> str:
    """What a pre and a post hook of one operation have in common; a hook without a partner is its own family."""
    for pre, post in (("_pre_", "_post_"), ("_input", "_output")):
        if pre in hook or post in hook:
            return hook.replace(post, pre)
    return hook


def partner_of(hook: str) -> str | None:
    """The post hook of a pre hook, `None` for any other."""
    for pre, post in (("_pre_", "_post_"), ("_input", "_output")):
        if pre in hook:
            return hook.replace(pre, post)
    return None


class Operations(Generic[T]):
    """The operations that are not over, bounded in number and age."""

    def __init__(self, *, limit: int, max_age_s: float, forget: Callable[[T], None]) -> None:
        """Keep at most `limit` operations, none longer than `max_age_s` seconds.

        Args:
            forget: Told of each value that is given up without having ended.
        """
        self._limit = limit
        self._max_age_s = max_age_s
        self._forget = forget
        self._by_key: dict[Key, deque[Operation[T]]] = {}
        self._by_age: OrderedDict[int, Operation[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_age)

    def find(self, key: Key, hook: str, half: Half) -> Operation[T] | None:
        """The oldest operation of the key that still lacks this half, or `None`.

        Calls of one request to the same entity at the same time are told apart by nothing but their order.
        """
        return next((each for each in self._by_key.get(key, ()) if (hook, half) not in each.seen), None)

    def open(self, key: Key, value: T) -> Operation[T]:
        """Begin an operation, giving up the oldest ones where there are too many or they are too old."""
        now = clock.monotonic()
        while self._by_age:
            oldest = next(iter(self._by_age.values()))
            if len(self._by_age) < self._limit and now - oldest.opened_at <= self._max_age_s:
                break
            self._give_up(oldest)
        operation = Operation(key, value, now)
        self._by_key.setdefault(key, deque()).append(operation)
        self._by_age[id(operation)] = operation
        return operation

    def close(self, operation: Operation[T]) -> None:
        """End an operation."""
        del self._by_age[id(operation)]
        same = self._by_key[operation.key]
        same.remove(operation)
        if not same:
            del self._by_key[operation.key]

    def give_up_all(self) -> None:
        """Give up every operation, oldest first."""
        while self._by_age:
            self._give_up(next(iter(self._by_age.values())))

    def _give_up(self, operation: Operation[T]) -> None:
        self.close(operation)
        self._forget(operation.value)


def is_over(operation: Operation[T], watched: Collection[str]) -> bool:
    """Whether nothing more can come for an operation: each of its hooks is complete, and one of them is the last.

    Args:
        watched: Hooks that the observer is told of.
    """
    hooks = {hook for hook, _ in operation.seen}
    if len(operation.seen) < 2 * len(hooks):
        return False
    return any(hook in operation.ended_by or partner_of(hook) not in watched for hook in hooks)
