"""The guard around a host's operations: pre hook, the operation itself, post hook.

`manager.request(...)` opens a `Request`; each of its calls is an `Operation` of some `Kind`. The table of kinds
(`operations.py`) says which hooks stand around what; everything else treats all kinds alike.

Source: docs/guard.md.
"""

from cpex.framework.guard.coverage import Ledger, OperationRecord
from cpex.framework.guard.operation import Operation
from cpex.framework.guard.operations import AGENT, HTTP, KINDS, MODEL, PROMPT, RESOURCE, TOOL, Kind
from cpex.framework.guard.request import Request, current_request

__all__ = [
    "AGENT",
    "HTTP",
    "KINDS",
    "MODEL",
    "PROMPT",
    "RESOURCE",
    "TOOL",
    "Kind",
    "Ledger",
    "Operation",
    "OperationRecord",
    "Request",
    "current_request",
]
