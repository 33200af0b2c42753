"""The address at which MCP servers of release 0.1 import `ExternalPluginServer`."""

from cpex.framework.external.server import ExternalPluginServer

__all__ = ["ExternalPluginServer"]
