"""Messages of model providers and of MCP, made into messages of the common format and back.

Plain functions over the dicts that go over the wire; no provider's package is needed. What has no counterpart is an
`AdapterError` that says where it stands, or is kept as it is: keys in `model_extra`, blocks as `OpaqueContentPart`. So
a host can convert a request, have it judged and rewritten, and send on what it gets back.
"""

from cpex.framework.cmf.adapters.anthropic import from_anthropic, to_anthropic
from cpex.framework.cmf.adapters.common import AdapterError
from cpex.framework.cmf.adapters.mcp import (
    from_mcp_content,
    from_mcp_prompt,
    from_mcp_tool_call,
    from_mcp_tool_result,
    to_mcp_content,
    to_mcp_prompt,
    to_mcp_tool_call,
    to_mcp_tool_result,
)
from cpex.framework.cmf.adapters.openai import from_openai, to_openai

__all__ = [
    "AdapterError",
    "from_anthropic",
    "from_mcp_content",
    "from_mcp_prompt",
    "from_mcp_tool_call",
    "from_mcp_tool_result",
    "from_openai",
    "to_anthropic",
    "to_mcp_content",
    "to_mcp_prompt",
    "to_mcp_tool_call",
    "to_mcp_tool_result",
    "to_openai",
]
