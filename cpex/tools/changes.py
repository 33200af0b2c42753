"""What a pipeline changed in a payload, as RFC 6902 operations that never tell what was there before.

What was removed or replaced may be the very secret that a plugin took out, so values of the past are left out unless
they are asked for. A key can be a secret too (`{"ada@example.com": 1}`): when one that does not look like a field name
goes, or goes while another comes, the object around it is replaced as a whole and the key is not named.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

__all__ = ["Operation", "changes", "jsonable"]

Operation = dict[str, Any]
"""`{"op": "add" | "replace" | "remove", "path": JSON pointer, "value": new value, "removed": old value}`.

`value` is absent from `remove`; `removed` is there only on request. RFC 6902, section 4: readers ignore members that
they do not know.
"""

_ABSENT: Any = object()
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}[0-9]{0,2}")
"""Field names as programs use them. No e-mail address, card, phone or account number reads like this."""


def changes(before: Any, after: Any, *, written: Any = _ABSENT, show_removed: bool = False) -> list[Operation]:
    """The operations that lead from one JSON value to another.

    Args:
        written: How `before` was written down, where that lacks parts that `before` got by default. The operations
            then lead from `written` to `after`, leaving alone what is the same before and after.
        show_removed: Tell in each operation what it removes.
    """
    diff = _Diff(show_removed)
    try:
        diff.compare(before, after, before if written is _ABSENT else written, "")
    except RecursionError:
        # Too deep to be compared part by part; the whole is a true answer, too.
        diff.operations.clear()
        diff.note("replace", "", after, written)
    return diff.operations


def jsonable(value: Any) -> Any:
    """JSON values for anything: models by field names, bytes as text or base64, what JSON has no form for as text."""
    try:
        return _to_json(value)
    # Bytes that are no text, or a value that contains itself.
    except ValueError:
        pass
    try:
        # A model says by itself how its bytes are written; its plain values leave that to us.
        return _to_json(value.model_dump() if isinstance(value, BaseModel) else value, "base64")
    except ValueError:
        return f"<{type(value).__name__} that JSON cannot express>"


def _to_json(value: Any, bytes_mode: Literal["utf8", "base64"] = "utf8") -> Any:
    return to_jsonable_python(value, by_alias=False, bytes_mode=bytes_mode, inf_nan_mode="null", serialize_unknown=True)


class _Diff:
    def __init__(self, show_removed: bool) -> None:
        self.operations: list[Operation] = []
        self._show_removed = show_removed

    def note(self, op: str, path: str, value: Any = _ABSENT, removed: Any = _ABSENT) -> None:
        operation: Operation = {"op": op, "path": path}
        if value is not _ABSENT:
            operation["value"] = value
        if self._show_removed and removed is not _ABSENT:
            operation["removed"] = removed
        self.operations.append(operation)

    def compare(self, before: Any, after: Any, written: Any, path: str) -> None:
        """Note what leads from `written`, which stands for `before`, to `after`."""
        if same(before, after):
            return
        if written is _ABSENT:
            self.note("add", path, after)
        elif isinstance(before, dict) and isinstance(after, dict) and isinstance(written, dict):
            self._objects(before, after, written, path)
        elif _is_list_of(written, before) and isinstance(after, list):
            self._arrays(before, after, written, path)
        else:
            self.note("replace", path, after, written)

    def _objects(self, before: dict[str, Any], after: dict[str, Any], written: dict[str, Any], path: str) -> None:
        lost = [key for key in before if key not in after and key in written]
        gained = [key for key in after if key not in before]
        if lost and not self._show_removed and (gained or not all(map(_FIELD_NAME.fullmatch, lost))):
            # SECURITY: naming what went could name the secret.
            self.note("replace", path, after)
            return
        for key in lost:
            self.note("remove", _inside(path, key), removed=written[key])
        for key, value in after.items():
            self.compare(before.get(key, _ABSENT), value, written.get(key, _ABSENT), _inside(path, key))

    def _arrays(self, before: list[Any], after: list[Any], written: list[Any], path: str) -> None:
        """Compare in place what both have between their common ends, then cut or extend."""
        head = _common(before, after)
        tail = _common(before[head:][::-1], after[head:][::-1])
        old_end, new_end = len(before) - tail, len(after) - tail
        shared = min(old_end, new_end)
        for index in range(head, shared):
            self.compare(before[index], after[index], written[index], f"{path}/{index}")
        for index in reversed(range(shared, old_end)):
            self.note("remove", f"{path}/{index}", removed=written[index])
        for index in range(shared, new_end):
            self.note("add", f"{path}/{index}", after[index])


def same(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same in writing: `1`, `1.0` and `true` are not."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def _common(first: list[Any], second: list[Any]) -> int:
    """How many values at the beginning are the same."""
    pairs = zip(first, second, strict=False)
    return next(
        (index for index, (one, other) in enumerate(pairs) if not same(one, other)), min(len(first), len(second))
    )


def _is_list_of(written: Any, before: Any) -> bool:
    return isinstance(written, list) and isinstance(before, list) and len(written) == len(before)


def _inside(path: str, key: str) -> str:
    # RFC 6901, section 3.
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
