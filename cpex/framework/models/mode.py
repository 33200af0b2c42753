"""Closed sets of words: how a plugin runs, what its failure means, how a call of it ended."""

from enum import Enum, StrEnum


class PluginMode(StrEnum):
    """In which phase a plugin runs, and so what it may do. Phases run in the order of this list."""

    SEQUENTIAL = "sequential"
    """One after another by priority; may deny and rewrite."""
    TRANSFORM = "transform"
    """One after another by priority; may rewrite, never deny."""
    AUDIT = "audit"
    """One after another by priority; only watches. A denial is recorded as one that would have happened."""
    CONCURRENT = "concurrent"
    """All at once; may deny, never rewrite."""
    FIRE_AND_FORGET = "fire_and_forget"
    """In the background, on a snapshot; nothing it does reaches the caller."""
    DISABLED = "disabled"
    """Not loaded."""


class OnError(StrEnum):
    """What a failure of the plugin means for the call."""

    FAIL = "fail"
    """The call fails: the host sees a `PluginError`."""
    IGNORE = "ignore"
    """The call goes on without the plugin; the record says that it failed."""
    DISABLE = "disable"
    """As `ignore`, and the plugin is not called again until it is re-enabled."""


class ControlExecutionStatus(StrEnum):
    """How one plugin's part in a hook call ended."""

    COMPLETED = "completed"
    ERROR = "error"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    DISABLED = "disabled"


class TransportType(str, Enum):
    """How an external plugin over MCP is reached."""

    SSE = "SSE"
    HTTP = "HTTP"
    STDIO = "STDIO"
    STREAMABLEHTTP = "STREAMABLEHTTP"
    GRPC = "GRPC"


class PluginInstallationType(StrEnum):
    """Where an installed plugin came from."""

    BUNDLED = "bundled"
    PYPI = "pypi"
    GIT = "git"
    MONOREPO = "monorepo"
    LOCAL = "local"
