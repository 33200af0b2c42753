"""What plugins keep for a request, lent to operations that may run side by side.

Each operation works on a copy of what earlier ones left, so parallel operations never see each other's state. What an
operation wrote comes back when it ends, key by key; a later operation goes on from there.
"""

from __future__ import annotations

from cpex.framework.memory.views import ContextSource, StateChanges
from cpex.framework.models.context import GlobalContext, PluginContext, PluginContextTable

__all__ = ["Contexts"]

_OWN = ("state", "metadata")


class Contexts:
    """The plugin contexts of one request."""

    def __init__(self, context: GlobalContext, entries: PluginContextTable | None = None) -> None:
        self._source = ContextSource(context)
        # INVARIANT: replaced, never edited, so that who borrowed can tell what they started from.
        self.entries: PluginContextTable = dict(entries or {})

    def lend(self) -> PluginContextTable | None:
        """Copies for one operation; `None` when no plugin has kept anything yet."""
        if not self.entries:
            return None
        return {key: self._source.continued(context) for key, context in self.entries.items()}

    def take_back(self, start: PluginContextTable, table: PluginContextTable | None) -> None:
        """Carry what an operation changed into the request's contexts.

        Args:
            start: `entries` as they were when the operation borrowed.
            table: What its last hook call returned.
        """
        # Past the table's bookkeeping: what no plugin has touched holds nothing.
        touched = {key: each for key, each in dict.items(table or {}) if each.state or each.metadata or key in start}
        if start is self.entries:
            if touched:
                self.entries = {**self.entries, **touched}
            return
        self.entries = {**self.entries, **{key: self._merged(start, key, each) for key, each in touched.items()}}

    def _merged(self, start: PluginContextTable, key: str, now: PluginContext) -> PluginContext:
        merged = self._source.continued(self.entries.get(key))
        before = start.get(key)
        for name in _OWN:
            baseline = getattr(before, name) if before is not None else {}
            change = StateChanges(name, baseline, getattr(now, name), partial=False)
            getattr(merged, name).update(change.written)
            for gone in change.deleted:
                getattr(merged, name).pop(gone, None)
        return merged
