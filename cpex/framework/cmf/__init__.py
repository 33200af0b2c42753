"""The common message format: what models, tools, prompts and resources say, in one shape, and read-only views of it."""
