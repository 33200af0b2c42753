"""Fixed words of the framework: plugin kinds, configuration keys, wire names, metadata keys."""

__all__ = [
    "BUILTIN_PLUGIN_TYPE",
    "CMD",
    "CONTEXT",
    "CWD",
    "ENV",
    "ERROR",
    "EXTERNAL_PLUGIN_TYPE",
    "GATEWAY_METADATA",
    "GET_PLUGIN_CONFIG",
    "GET_PLUGIN_CONFIGS",
    "HOOK_TYPE",
    "IGNORE_CONFIG_EXTERNAL",
    "INVOKE_HOOK",
    "ISOLATED_VENV_PLUGIN_TYPE",
    "KNOWN_PLUGIN_KINDS",
    "MCP_SERVER_INSTRUCTIONS",
    "MCP_SERVER_NAME",
    "NAME",
    "NATIVE_PLUGIN_TYPE",
    "PAYLOAD",
    "PDP_PLUGIN_TYPE",
    "PLUGIN_NAME",
    "PYTHON_SUFFIX",
    "RESULT",
    "SCRIPT",
    "TOOL_METADATA",
    "UDS",
    "URL",
    "WASM_PLUGIN_TYPE",
]

NATIVE_PLUGIN_TYPE = "native"
BUILTIN_PLUGIN_TYPE = "builtin"
WASM_PLUGIN_TYPE = "wasm"
EXTERNAL_PLUGIN_TYPE = "external"
"""Runs in another process and is reached over MCP, gRPC or a Unix socket."""
ISOLATED_VENV_PLUGIN_TYPE = "isolated_venv"
"""Runs in a worker process with a virtual environment of its own."""
PDP_PLUGIN_TYPE = "PDP"

KNOWN_PLUGIN_KINDS = frozenset(
    {
        NATIVE_PLUGIN_TYPE,
        BUILTIN_PLUGIN_TYPE,
        WASM_PLUGIN_TYPE,
        EXTERNAL_PLUGIN_TYPE,
        ISOLATED_VENV_PLUGIN_TYPE,
        PDP_PLUGIN_TYPE,
    }
)
"""Kinds that are words; every other kind is a dotted class path or a registered name."""

# Keys of an external plugin's section.
URL = "url"
SCRIPT = "script"
CMD = "cmd"
ENV = "env"
CWD = "cwd"
UDS = "uds"
PYTHON_SUFFIX = ".py"

IGNORE_CONFIG_EXTERNAL = "ignore_config_external"
"""Key of the validation context under which an external plugin's configuration may carry settings."""

# Wire words shared by hosts and plugin servers.
NAME = "name"
PLUGIN_NAME = "plugin_name"
PAYLOAD = "payload"
CONTEXT = "context"
RESULT = "result"
ERROR = "error"
HOOK_TYPE = "hook_type"
GET_PLUGIN_CONFIGS = "get_plugin_configs"
GET_PLUGIN_CONFIG = "get_plugin_config"
INVOKE_HOOK = "invoke_hook"
MCP_SERVER_NAME = "MCP Plugin Server"
MCP_SERVER_INSTRUCTIONS = "External plugin server for ContextForge"

# Keys under which hosts put what they know about the operation into `GlobalContext.metadata`.
TOOL_METADATA = "tool"
GATEWAY_METADATA = "gateway"
