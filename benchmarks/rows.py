"""The rows of the table: what each measures, and the figure it should reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["loop", "import", "initialize", "tenants", "stream"]

FLOOR = "floor"
SMALL = "small payload"
PYDANTIC = "import pydantic"
_NAMES = "from cpex.framework import Plugin, PluginConfig, PluginManager, ToolPreInvokePayload, ToolPreInvokeResult"


@dataclass(frozen=True)
class Target:
    """What a row should reach. `None` where there is nothing to reach."""

    over_baseline: float | None = None
    """At most this many times the baseline of the same process."""
    speedup: float | None = None
    """At least this many times better than the published release."""
    seconds: float | None = None
    mib: float | None = None
    memory_ratio: float | None = None
    """At least this many times less memory than the published release."""


@dataclass(frozen=True)
class Row:
    """One scenario."""

    key: str
    title: str
    kind: Kind
    target: Target = Target()
    baseline: str | None = None
    """What each side measures beside it; for an import, the statement itself. `None` for nothing."""
    argument: str = ""
    """What `side/cold.py` is told, or which plugins stand in the stream's layers."""


_SERIAL = Target(over_baseline=2.0, speedup=12.0)
_IMPORT = Target(seconds=0.25, mib=45.0, speedup=5.0, memory_ratio=2.0)

ROWS: tuple[Row, ...] = (
    Row("sequential-10", "10 no-op sequential plugins", "loop", _SERIAL, FLOOR),
    Row("transform-10", "10 no-op transform plugins", "loop", _SERIAL, FLOOR),
    Row("audit-10", "10 no-op audit plugins", "loop", _SERIAL, FLOOR),
    Row("one-plugin", "1 no-op plugin", "loop", Target(speedup=8.0), FLOOR),
    Row("concurrent-10", "10 no-op concurrent plugins", "loop", Target(speedup=10.0), FLOOR),
    Row("background-10", "10 no-op fire_and_forget plugins", "loop", Target(speedup=10.0), FLOOR),
    Row("no-plugin", "hook with no plugin", "loop", Target(speedup=2.0), FLOOR),
    Row("large-same", "50 kB payload, same object", "loop", Target(over_baseline=1.3, speedup=80.0), SMALL),
    Row("large-fresh", "50 kB payload, fresh object", "loop", Target(speedup=5.0), SMALL),
    Row("rewrite-copy", "1 of 100 keys changed, new dict", "loop", Target(speedup=8.0), FLOOR),
    Row("rewrite-in-place", "1 of 100 keys changed, in place", "loop", Target(speedup=8.0), FLOOR),
    Row("import", "import cpex.framework", "import", _IMPORT, PYDANTIC, "import cpex.framework"),
    Row("import-names", "import what a host and a plugin use", "import", Target(), PYDANTIC, _NAMES),
    Row("initialize-1", "start a manager of 1 plugin", "initialize", argument="1"),
    Row("initialize-100", "start a manager of 100 plugins", "initialize", argument="100"),
    Row("initialize-1000", "start a manager of 1,000 plugins", "initialize", argument="1000"),
    Row("tenants-1000", "start 1,000 tenant managers of 5 plugins", "tenants", argument="1000"),
    Row("stream", "event stream, four layers, same plugins", "stream", argument="equivalent"),
    Row("stream-builtin", "event stream, four layers, ours built in", "stream", argument="builtin"),
)
