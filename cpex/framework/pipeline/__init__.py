"""The engine: a plan per hook, and the executor that walks it."""
