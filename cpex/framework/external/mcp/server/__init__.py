"""The MCP server of a configuration's plugins: `python -m cpex.framework.external.mcp.server.runtime`."""

from cpex.framework.external.server import ExternalPluginServer

__all__ = ["ExternalPluginServer"]
