"""The base of everything that a hook call is about."""

from pydantic import ConfigDict

from cpex.framework.models.lazy import LazyModel


class PluginPayload(LazyModel):
    """Base class of hook payloads: frozen, and the host's.

    A plugin receives an object of the same class that is its own: whatever it does to the containers inside never
    reaches the host. To change something it returns a changed copy, `payload.model_copy(update={...})`, or edits what
    it was handed and returns that. Assigning an attribute raises pydantic's `ValidationError` (`frozen_instance`).
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)
