"""The port to a policy decision point. It knows nothing of HTTP, engines or plugins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PdpError", "PdpResolver", "PdpResult"]

FAIL_OPEN = ", fail-open"
"""How the reason ends of a result that is allowed for want of a decision."""


@dataclass(frozen=True)
class PdpResult:
    """One decision."""

    allowed: bool
    reason: str | None = None
    """Why, in words of the policy; `None` when it does not say."""
    context: dict[str, Any] = field(default_factory=dict)
    """What came with the decision: obligations, advice, the engine's own detail."""
    from_cache: bool = False
    latency_ms: float = 0.0
    """Milliseconds from question to answer."""


class PdpError(Exception):
    """No decision could be had. Whoever asked must not take it for an allow.

    Attributes:
        endpoint: The URL that was to be asked, as it was configured.
        cause: What the HTTP library, or reading the answer, raised; `None` when the answer itself was at fault.
    """

    def __init__(self, message: str, endpoint: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.cause = cause

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.endpoint, self.cause)


class PdpResolver(ABC):
    """Asks one policy decision point. Built once, reused for every question, closed at the end."""

    @abstractmethod
    async def resolve(self, input_data: dict[str, Any]) -> PdpResult:
        """Ask whether an operation may happen.

        Args:
            input_data: The facts, as JSON values: `subject`, `action`, `tool`, `args`, `session`, `delegation`,
                `authorization_details`, and others that the policy knows.

        Raises:
            PdpError: There is no decision, and the resolver does not fail open.
        """

    async def resolve_many(self, inputs: Sequence[dict[str, Any]]) -> list[PdpResult]:
        """Ask several questions, one after another unless the engine takes them at once; answers in the same order.

        Raises:
            PdpError: One of them got no decision, and the resolver does not fail open.
        """
        return [await self.resolve(each) for each in inputs]

    async def close(self) -> None:  # noqa: B027  # most resolvers in tests hold nothing
        """Let go of connections. May be called more than once; a later question opens new ones."""
