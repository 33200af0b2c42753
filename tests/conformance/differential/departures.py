"""The table of departures: every behaviour in which this framework means to differ from the published package.

`docs/reference/differences.md` is made of it (`page.py`). Rows whose decision occurs in `translation.REWRITES` or
`expectations.EXPECTATIONS` are acted out in every differential run.
"""

from __future__ import annotations

from .departure import Departure
from .departures_of_environments import ENVIRONMENTS
from .departures_of_messages import MESSAGES
from .departures_of_processes import PROCESSES
from .departures_of_tools import TOOLS

FAILING: tuple[Departure, ...] = (
    Departure(
        "D1",
        "a plugin that does not start",
        "is skipped with a log line, whatever its `on_error`",
        "stops the start with `PluginLoadError` under `on_error: fail`; otherwise is listed in `failed_plugins`",
    ),
    Departure("D2", "a configuration file that is missing", "means no plugins", "is an error: `ConfigFileNotFound`"),
    Departure(
        "D3",
        "an unknown or repeated key in the file",
        "is dropped",
        "is an error that names the nearest known key (`PLUGINS_STRICT_CONFIG=false`: a WARNING)",
    ),
    Departure(
        "D4",
        "a hook name that nothing knows",
        "fails later or never",
        "is an error at the start; `@hook(name, Payload, Result)` registers the hook",
    ),
    Departure(
        "D5",
        "`tools`, `prompts` … on a hook without such an entity",
        "ask for nothing, on message hooks too",
        "read the entities of messages; a set that could never restrict anything is an error at the start",
    ),
    Departure(
        "D5a",
        "conditions",
        "are judged once, on the host's payload; an empty name matches every set; dict users match by their keys",
        "are judged right before each plugin; an empty name matches no set; users match by the e-mail, id or name of a "
        "dict or of the user context",
    ),
    Departure("D6", "`capabilities: read_headers`", "becomes no capability at all", "is a list of one"),
    Departure(
        "D7",
        "a denial in `transform` or `audit`",
        "is recorded as an allow, and the rest of the answer is lost",
        "is recorded as the denial it would have been; delay, headers and extensions of the answer count",
    ),
    Departure("D7a", "an `audit` plugin that fails", "ends the call under `on_error: fail`", "never ends the call"),
    Departure(
        "D7b",
        "raising `PluginViolationError`",
        "ends the call in every mode, as an exception, without shared state",
        "is that denial returned, in every mode; `violations_as_exceptions` decides what the host sees",
    ),
    Departure("D8", "an ignored failure", "is recorded as a clean allow", "is recorded as `error`, with its text"),
    Departure(
        "D9",
        "an answer that is no `PluginResult`",
        "fails as an `AttributeError` somewhere behind it, in the background not at all",
        "is the plugin's failure, and the text says so",
    ),
    Departure(
        "D9.values",
        "the text of a failure that is pydantic's",
        "quotes the values that were refused",
        "tells places and reasons; a refused value may be a secret",
    ),
    Departure("D10", "a plugin that edits its configuration", "edits the framework's", "edits its own copy"),
)

PAYLOADS: tuple[Departure, ...] = (
    Departure(
        "D11",
        "edits in place of payload, state or user",
        "leak to the host and to other plugins: below the first level always, without a policy at every level",
        "reach nobody; a nested edit of shared state is a write of its top-level key",
    ),
    Departure(
        "D12",
        "a payload that was edited in place and is returned",
        "is lost under a policy; one that was not edited counts as a change without one",
        "counts as a change in both cases, if and only if it was edited",
    ),
    Departure("D13", "containers in a plugin's hands", "are `CopyOnWriteDict` and `CopyOnWriteList`", "are plain"),
    Departure(
        "D14",
        "the price of isolation",
        "grows with the payload, and is paid when nobody looks",
        "is the price of what is touched; contexts that nobody looked at are made when somebody does",
    ),
    Departure(
        "D15",
        "the size limit",
        "counts the characters of `str()` of `args` or `result`; `max_content_size` is ignored",
        "counts the content of the whole payload in bytes; `max_content_size` holds",
    ),
    Departure(
        "D16",
        "background plugins",
        "get the host's payload and a new context each time, in a task for each; nobody waits for them",
        "get the final payload, redacted even after a denial, and their own state, in one task for all of a call; "
        "`shutdown()` drains them",
    ),
    Departure(
        "D17",
        "extensions that a plugin returns",
        "replace everything unchecked; later plugins do not see them; a halt loses them",
        "are merged by tier and capability, shown to later plugins, and kept after a halt",
    ),
    Departure(
        "D17.narrowing",
        "scopes along a chain of delegations",
        "may grow from hop to hop",
        "may only narrow; what they are called at other audiences stands in the plugin's `scope_mapping`",
    ),
    Departure(
        "D17a",
        "identity results",
        "have no effect",
        "reach the extensions, starting from empty ones; a rejected identity is a denial",
    ),
)

TIME: tuple[Departure, ...] = (
    Departure(
        "D18",
        "time",
        "one limit for all plugins; a plugin's own `TimeoutError` is taken for it; starting has none",
        "limits for a plugin, a call and a start; its own `TimeoutError` is its failure; codes tell which",
    ),
    Departure(
        "D18a",
        "context variables",
        "a plugin's are invisible because each runs in a task",
        "a plugin's are invisible because each runs in a copy of the caller's context, in the caller's task",
    ),
    Departure(
        "D19",
        "concurrent plugins when one denies or fails",
        "go on by themselves after a failure, unrecorded; whoever ends last overwrites shared state",
        "are cancelled, awaited and recorded, or not begun; writes and deletions merge by priority",
    ),
    Departure(
        "D20",
        "failing calls",
        "lose their records and leave spans open",
        "`PluginError` has `executions`; every span is closed",
    ),
    Departure(
        "D21",
        "a halt",
        "loses retry delay, extensions and the denial's metadata; success headers are always lost",
        "keeps what was gathered; success headers reach the host",
    ),
    Departure(
        "D22",
        "`on_error: disable`",
        "cannot be seen",
        "leaves a record `disabled` in each call, `disabled_plugins`, and an optional `disable_cooldown_s`",
    ),
    Departure(
        "D22a",
        "records",
        "of background plugins are written before they run, of concurrent ones lack durations",
        "say how it ended; an allow has no reason, even when a violation came with it",
    ),
)

MANAGERS: tuple[Departure, ...] = (
    Departure(
        "D23",
        "a second `PluginManager` with other arguments",
        "ignores them",
        "raises; `reset()` clears `get_plugin_manager()` too, and a tenant's never touches the shared state",
    ),
    Departure(
        "D24",
        "contexts of plugins that did not run in a hook",
        "are missing from the returned table, and their state is lost",
        "stay in the table until the request ends",
    ),
    Departure(
        "D25",
        "templates in the file",
        "the whole text is rendered, values are HTML-escaped, undefined ones are empty",
        "only `{{ env… }}` is replaced, as it is; an undefined one without a default is an error",
    ),
    Departure(
        "D26",
        "`plugin_dirs`",
        "outside a fixed list are silently ignored",
        "are used if they exist; missing or world-writable ones get a WARNING",
    ),
    Departure(
        "D27", "`import cpex.framework`", "loads transports and web servers", "loads the standard library and pydantic"
    ),
    Departure("D28", "`kind`", "is a dotted path or a transport", "may be a name that a package has registered, too"),
    Departure(
        "D29",
        "hooks whose reply is of another type than their payload",
        "hand the first plugin's reply to the second as its payload; any dict or class passes a policy",
        "hand everyone the request; replies gather beside it; a dict is validated, a foreign class is a failure",
    ),
    Departure(
        "D30", "learning what was finally decided", "is not possible", "a plugin may define `hook_completed(outcome)`"
    ),
    Departure("D31", "the clock", "is the system's", "is `cpex.framework.clock`, which tests and replays can set"),
    Departure(
        "D32",
        "a conversation's identity",
        "is each plugin's guess",
        "is the agent extension's `session_id`, else the one in the request's metadata",
    ),
)

CHAPTERS: tuple[tuple[str, tuple[Departure, ...]], ...] = (
    ("Nothing fails open in silence", FAILING),
    ("The payload belongs to the host", PAYLOADS),
    ("Time and tasks", TIME),
    ("Managers, loading, replies", MANAGERS),
    ("Messages", MESSAGES),
    ("Plugins in environments of their own", ENVIRONMENTS),
    ("Plugins in other processes", PROCESSES),
    ("Decision points, command line, templates", TOOLS),
)
"""`(heading of the page, rows)`."""
