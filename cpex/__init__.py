"""Plugin enforcement for AI agents: import what you need from `cpex.framework`."""
