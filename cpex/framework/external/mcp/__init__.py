"""Plugins behind an MCP server: over the pipes of a child process, or over HTTP on TCP or a Unix socket."""
