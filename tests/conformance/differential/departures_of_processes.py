"""Departures in plugins of other processes: weaknesses of the published release's own."""

from __future__ import annotations

from .departure import Departure

PROCESSES: tuple[Departure, ...] = (
    Departure("E1", "a late answer over a Unix socket", "is given to the next call", "is nobody's"),
    Departure("E2", "an MCP server that cannot be reached", "cancels the host's start", "is a failure of its plugin"),
    Departure("E3", "TLS of an MCP server", "does not start, or falls back to clear text", "starts, or is an error"),
    Departure("E4", "`verify: false` over gRPC", "drops the authorities and verifies on", "is refused"),
    Departure("E5", "a call whose connection was lost", "is made again", "is made again only when it had not left"),
    Departure("E6", "a server that was away for long", "is lost until a restart", "is found by a later call"),
    Departure("E7", "an external plugin that does not start", "is skipped", "stops the start, as `on_error` says"),
    Departure("E8", "`hooks: []` beside `kind: external`", "means no hooks", "means the server's"),
    Departure("E9", "a name in another case", "loads and fails on every call", "is the same name"),
    Departure(
        "E10",
        "a host name that leads into a private network",
        "is connected to; redirects are followed anywhere",
        "is refused unless `PLUGINS_SSRF_PROTECTION_ENABLED=false`; redirects stay on the same server",
    ),
    Departure(
        "E10.grpc",
        "a gRPC target in a private network",
        "is connected to",
        "is refused unless `PLUGINS_SSRF_PROTECTION_ENABLED=false`; this machine's own addresses are not",
    ),
    Departure("E11", "numbers, sets, dates over Structs", "become floats, or fail", "stay what they are"),
    Departure("E12", "metadata, headers, delay of a denial", "are lost on the server", "arrive"),
    Departure("E13", "extensions, user context, content type", "are never sent", "go to ends that know them"),
    Departure("E14", "a plugin's settings on its server", "are told to whoever asks", "are told with secrets masked"),
    Departure(
        "E15",
        "the environment of a child process",
        "is the host's, secrets included",
        "is a small one and what `env` names; `inherit_env: true` hands on everything",
    ),
    Departure("E16", "the Unix socket of an MCP server", "has mode 0666 and stays", "has mode 0600 and is removed"),
    Departure(
        "E16.parent",
        "a Unix socket in a folder that all users may write to",
        "is used, with a warning",
        "is refused; in a folder like `/tmp` it must belong to this user or to root",
    ),
    Departure("E17", "metrics that are switched off", "are status 500", "are status 503"),
    Departure("E18", "a gRPC call", "has no deadline", "has the plugin's"),
    Departure("E19", "calls over one Unix socket", "wait for one another", "are under way together"),
    Departure("E20", "a malformed variable of another server", "stops the server", "does not matter"),
    Departure(
        "E21",
        "`proto: SSE`",
        "fails with `session not initialized`",
        "is refused when the file is read, with what to write",
    ),
    Departure("E22", "an unknown `PLUGINS_TRANSPORT`", "starts HTTP", "is an error"),
    Departure("E23", "`session terminated` in a message", "starts a reconnect", "is a message"),
)
