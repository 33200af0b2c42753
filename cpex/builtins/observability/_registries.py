"""Prometheus registries: which one a plugin uses, and the rule that one registry holds a metric once."""

from __future__ import annotations

import pkgutil
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from weakref import WeakKeyDictionary

from pydantic import AfterValidator

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

T = TypeVar("T")


def _check_buckets(buckets: tuple[float, ...]) -> tuple[float, ...]:
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] <= 0:
        raise ValueError("buckets are positive numbers of seconds, each larger than the one before")
    return buckets


Buckets = Annotated[tuple[float, ...], AfterValidator(_check_buckets)]
"""Upper bounds of a histogram, as a setting."""

_lock = threading.Lock()
_made: WeakKeyDictionary[CollectorRegistry, dict[str, tuple[Hashable, Any]]] = WeakKeyDictionary()


def find_registry(place: str | None) -> CollectorRegistry:
    """The registry at `module:name`, or the Prometheus client's own.

    Raises:
        ImportError, AttributeError: There is nothing at that place.
        ValueError: What is there is no registry.
    """
    from prometheus_client import REGISTRY, CollectorRegistry

    if place is None:
        return REGISTRY
    found: Any = pkgutil.resolve_name(place)
    if not isinstance(found, CollectorRegistry):
        raise ValueError(f"`{place}` is {type(found).__name__}, expected a CollectorRegistry")
    return found


def made_once(registry: CollectorRegistry, name: str, shape: Hashable, make: Callable[[], T]) -> T:
    """What was made of that name in a registry, made at the first request; it lives as long as the registry.

    A registry refuses a second metric of the same name, and several managers of one process may share a registry.

    Args:
        shape: What two users of one thing must agree on.

    Raises:
        ValueError: It was made in another shape, or the registry holds foreign metrics of these names.
    """
    with _lock:
        known = _made.setdefault(registry, {})
        if name not in known:
            known[name] = (shape, make())
        found, thing = known[name]
        if found != shape:
            raise ValueError(
                f"metrics `{name}` exist in this registry with other buckets or labels; "
                "give both plugins the same settings, or another `namespace`"
            )
        made: T = thing
        return made
