"""Names of slots and of the fields inside them."""

from enum import StrEnum

__all__ = [
    "FIELD_AGENT",
    "FIELD_CLAIMS",
    "FIELD_CLASSIFICATION",
    "FIELD_COMPLETION",
    "FIELD_CUSTOM",
    "FIELD_DATA",
    "FIELD_DELEGATION",
    "FIELD_FRAMEWORK",
    "FIELD_HTTP",
    "FIELD_LABELS",
    "FIELD_LLM",
    "FIELD_MCP",
    "FIELD_META",
    "FIELD_OBJECTS",
    "FIELD_PERMISSIONS",
    "FIELD_PROVENANCE",
    "FIELD_REQUEST",
    "FIELD_ROLES",
    "FIELD_SECURITY",
    "FIELD_SUBJECT",
    "FIELD_TEAMS",
    "SlotName",
]

FIELD_REQUEST = "request"
FIELD_PROVENANCE = "provenance"
FIELD_COMPLETION = "completion"
FIELD_LLM = "llm"
FIELD_FRAMEWORK = "framework"
FIELD_MCP = "mcp"
FIELD_AGENT = "agent"
FIELD_HTTP = "http"
FIELD_META = "meta"
FIELD_DELEGATION = "delegation"
FIELD_CUSTOM = "custom"
FIELD_SECURITY = "security"

FIELD_LABELS = "labels"
FIELD_CLASSIFICATION = "classification"
FIELD_SUBJECT = "subject"
FIELD_OBJECTS = "objects"
FIELD_DATA = "data"

FIELD_ROLES = "roles"
FIELD_TEAMS = "teams"
FIELD_CLAIMS = "claims"
FIELD_PERMISSIONS = "permissions"


class SlotName(StrEnum):
    """What the tier rules govern: a slot of `Extensions`, or a dotted path into its security slot."""

    REQUEST = "request"
    PROVENANCE = "provenance"
    COMPLETION = "completion"
    LLM = "llm"
    FRAMEWORK = "framework"
    MCP = "mcp"
    AGENT = "agent"
    HTTP = "http"
    META = "meta"
    DELEGATION = "delegation"
    CUSTOM = "custom"
    SECURITY_SUBJECT = "security.subject"
    SECURITY_SUBJECT_ROLES = "security.subject.roles"
    SECURITY_SUBJECT_TEAMS = "security.subject.teams"
    SECURITY_SUBJECT_CLAIMS = "security.subject.claims"
    SECURITY_SUBJECT_PERMISSIONS = "security.subject.permissions"
    SECURITY_OBJECTS = "security.objects"
    SECURITY_DATA = "security.data"
    SECURITY_LABELS = "security.labels"
