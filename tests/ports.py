"""Ports for servers that must be told where to listen: those of benchmarks, which tests run as well."""

from __future__ import annotations

from benchmarks.ports import free_port

__all__ = ["free_port"]
