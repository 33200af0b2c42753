"""Plugins that decide what an agent may do and how much of it."""
