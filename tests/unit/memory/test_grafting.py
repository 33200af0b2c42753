"""What a plugin changed counts, whatever the changed object's class takes for equal."""

from __future__ import annotations

import collections
import copy
import ipaddress
import pathlib
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

import pytest
from support import manager_of, plugin

from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.hooks.tools import ToolPostInvokePayload
from cpex.framework.memory import graft
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult

POST = "tool_post_invoke"


class Row:
    """Equal by its key, as rows of databases are."""

    def __init__(self, ssn: str, key: int = 1) -> None:
        self.key = key
        self.ssn = ssn

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.key == other.key

    __hash__ = None


@dataclass
class Person:
    name: str
    ssn: str = field(default="", compare=False, repr=False)


@dataclass(slots=True)
class Slotted:
    name: str
    ssn: str = field(default="", compare=False)


class Private:
    __slots__ = "__ssn"

    def __init__(self, ssn: str) -> None:
        self.__ssn = ssn

    @property
    def ssn(self) -> str:
        return self.__ssn

    @ssn.setter
    def ssn(self, value: str) -> None:
        self.__ssn = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Private)

    __hash__ = None


class Titled(list[int]):
    ssn = ""


class Mapped(dict[str, int]):
    ssn = ""


class Line(NamedTuple):
    row: Row


def with_ssn(value: Any) -> Any:
    value.ssn = "123-45-6789"
    return value


OBJECTS = [
    Row("123-45-6789"),
    Person("ann", "123-45-6789"),
    Slotted("ann", "123-45-6789"),
    Private("123-45-6789"),
    with_ssn(Titled([1])),
    with_ssn(Mapped(a=1)),
]


@pytest.mark.parametrize("policy", [None, HookPayloadPolicy(frozenset({"result"}))], ids=["no_policy", "policy"])
@pytest.mark.parametrize("in_place", [True, False], ids=["in_place", "anew"])
@pytest.mark.parametrize("original", OBJECTS, ids=lambda each: type(each).__name__)
async def test_what_a_transform_masks_is_masked_though_the_object_takes_itself_for_unchanged(
    original: Any, in_place: bool, policy: HookPayloadPolicy | None
) -> None:
    async def masks(payload: Any, context: Any) -> PluginResult[Any]:
        result = payload.result if in_place else copy.copy(payload.result)
        result.ssn = "***"
        changed = payload if in_place else payload.model_copy(update={"result": result})
        return PluginResult(modified_payload=changed)

    payload = ToolPostInvokePayload(name="t", result=original)
    policies = {POST: policy} if policy is not None else None
    manager = manager_of(plugin(masks, hooks=[POST], mode="transform"), hook_policies=policies)
    result, _ = await manager.invoke_hook(POST, payload, GlobalContext(request_id="r"))
    assert result.modified_payload is not None
    assert result.modified_payload.result.ssn == "***"
    assert original.ssn == "123-45-6789"


@pytest.mark.parametrize(
    "holding",
    [
        lambda row: Line(row),
        lambda row: collections.deque([row]),
        lambda row: collections.OrderedDict(row=row),
        lambda row: collections.UserList([row]),
        lambda row: [Person("ann"), {"row": (row,)}],
        lambda row: Titled([row]),
        lambda row: Mapped(row=row),
    ],
)
def test_what_changed_inside_of_a_container_counts(holding: Any) -> None:
    old, new = holding(Row("123")), holding(Row("***"))
    assert graft(old, new) is not old
    assert graft(old, holding(Row("123"))) is old


@dataclass(frozen=True)
class Token:
    name: str
    secret: str = field(compare=False)


def test_elements_of_a_set_count_when_they_hold_more_than_they_compare_by() -> None:
    old = {Token("a", "hunter2")}
    grafted = graft(old, {replace(each, secret="***") for each in old})
    assert [each.secret for each in grafted] == ["***"]


class Color(Enum):
    RED = "red"


@pytest.mark.parametrize("plain", [{1, "a"}, frozenset({(1, "a"), Color.RED}), {frozenset({1})}, OBJECTS[1]])
def test_what_is_alike_stays_the_original(plain: Any) -> None:
    assert graft(plain, copy.deepcopy(plain)) is plain


def test_what_a_value_has_worked_out_meanwhile_is_no_change() -> None:
    old = [ipaddress.ip_network("10.0.0.0/8"), pathlib.PurePosixPath("a/b")]
    new = copy.deepcopy(old)
    assert str(new[0].netmask) == "255.0.0.0"
    assert hash(new[1])
    assert graft(old, new) is old


def test_an_object_that_holds_itself_can_be_grafted() -> None:
    old, new = Row("123"), Row("***")
    old.key = new.key = 1
    old.me, new.me = old, new
    grafted = graft(old, new)
    assert grafted.ssn == "***"
    assert grafted.me is grafted
