"""The MCP proxy: stands between a client and its servers, and lets plugins decide about every operation.

It forwards JSON-RPC messages as they are, both ways. Only calls of tools, prompts and resources, and the lists of them,
are looked into. `session` is the heart: one client and its servers; `guarding` is where plugins decide; the other
modules carry messages.

Source: docs/proxy.md.
"""

from cpex.proxy.runtime import ProxySettings, serve
from cpex.proxy.upstreams import ChildUpstream, Upstream, UrlUpstream, read_servers

__all__ = ["ChildUpstream", "ProxySettings", "Upstream", "UrlUpstream", "read_servers", "serve"]
