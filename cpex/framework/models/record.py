"""What happened to each plugin in a hook call, as values that a host can keep."""

from pydantic import BaseModel

from cpex.framework.models.mode import ControlExecutionStatus, PluginMode


class ControlExecutionRecord(BaseModel):
    """One plugin's part in one hook call. Everything that names the plugin comes from the trusted configuration."""

    plugin_id: str
    """32 hexadecimal digits; new with every registration."""
    plugin_name: str
    plugin_kind: str
    """At most 256 UTF-8 bytes."""
    hook_name: str
    mode: PluginMode
    status: ControlExecutionStatus
    requested_allow: bool | None = None
    """What the plugin answered; `None` when it gave no answer (error, timeout, background)."""
    effective_allow: bool = True
    """What the pipeline made of it, after mode and `on_error`."""
    matched: bool | None = None
    """The plugin denied or changed something; `None` when unknown."""
    applied: bool = False
    """It changed the payload, the extensions or the decision."""
    payload_modified: bool = False
    extensions_modified: bool = False
    duration_ns: int = 0
    """Nanoseconds on the monotonic clock."""
    reason: str | None = None
    """At most 256 UTF-8 bytes."""
    error_code: str | None = None
    config_keys: list[str] = []
    """Names of the plugin's settings, at most 64; never their values."""
    pending: bool = False
    """A background plugin that has not ended yet; status and duration are completed in place when it does."""
