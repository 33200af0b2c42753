"""Policy decision points: ask a policy engine whether an operation may happen.

The port is in `base.py`, one adapter per file. An adapter is built once and reused; it fails closed unless told
otherwise, and says so when it does not.

Source: docs/reference/pdp.md.
"""

from __future__ import annotations

from cpex.framework.pdp.authzen import AuthZenResolver
from cpex.framework.pdp.base import PdpError, PdpResolver, PdpResult
from cpex.framework.pdp.caching import CachingResolver
from cpex.framework.pdp.opa import OpaResolver

__all__ = ["AuthZenResolver", "CachingResolver", "OpaResolver", "PdpError", "PdpResolver", "PdpResult"]
