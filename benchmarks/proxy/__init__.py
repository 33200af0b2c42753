"""What the MCP proxy adds to a call, beside a bare one that is built from the same library."""
