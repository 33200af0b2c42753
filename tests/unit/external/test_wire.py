"""What crosses to another process, and what is refused."""

from __future__ import annotations

import dataclasses
import enum
import threading
from typing import Any

import pytest
from pydantic import (
    BaseModel,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    create_model,
    field_serializer,
    model_serializer,
    model_validator,
)

from cpex.framework import GlobalContext, PluginContext, ToolPreInvokePayload
from cpex.framework.extensions import Extensions, SecurityExtension
from cpex.framework.extensions.tiers import filter_extensions
from cpex.framework.external.shapes import seen_models
from cpex.framework.external.wire import WireError, dumps, encode, loads, plain
from cpex.framework.memory.views import ContextSource, Views
from cpex.framework.models.lazy import PENDING, raw_dict


class Colour(enum.Enum):
    """A closed set."""

    RED = "red"


@dataclasses.dataclass
class Point:
    """A plain record."""

    x: int
    tags: set[str]


def test_models_enums_and_dataclasses_cross_as_what_they_hold() -> None:
    payload = ToolPreInvokePayload(name="t", args={"c": Colour.RED, "p": Point(1, {"a"}), "n": None})
    assert loads(dumps(payload)) == {"name": "t", "args": {"c": "red", "p": {"x": 1, "tags": {"a"}}, "n": None}}


def test_a_secret_crosses_only_when_it_may() -> None:
    assert loads(dumps(SecretStr("hunter2"))) == SecretStr("**********")
    assert loads(dumps(SecretStr("hunter2"), reveal=True)) == SecretStr("hunter2")
    assert b"hunter2" not in dumps({"a": [SecretStr("hunter2")]})


def test_what_cannot_cross_is_named_with_its_place() -> None:
    with pytest.raises(WireError) as raised:
        encode({"args": {"list": [1, threading.Lock()]}})
    assert str(raised.value) == (
        "args.list[1] holds a `_thread.lock`, which cannot cross to another process; send plain data in its place"
    )


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WireError, match="nested too deep, or contains itself"):
        encode(loop)


@pytest.mark.parametrize(
    "text",
    [
        b'{"$cpex": "pickle", "v": "x"}',
        b'{"$cpex": "set"}',
        b'{"$cpex": "set", "v": [1], "w": 1}',
        b'{"$cpex": "set", "v": [[]]}',
        b'{"$cpex": "date", "v": "tomorrow"}',
        b'{"$cpex": ["set"], "v": []}',
        b'{"a": ',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_broken_frames_are_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        loads(text)


def test_the_plain_form_leaves_null_fields_out_and_keeps_nulls_in_dictionaries() -> None:
    context = PluginContext(global_context=GlobalContext(request_id="r", state={"n": None}))
    assert plain(context) == {
        "global_context": {"request_id": "r", "state": {"n": None}, "metadata": {}},
        "state": {},
        "metadata": {},
    }


def test_the_plain_form_masks_secrets_and_says_what_it_cannot_write() -> None:
    assert plain(ToolPreInvokePayload(name="t", args={"s": SecretStr("hunter2")}))["args"] == {"s": "**********"}
    with pytest.raises(WireError, match="a ToolPreInvokePayload cannot be written as JSON"):
        plain(ToolPreInvokePayload(name="t", args={"lock": threading.Lock()}))


class Plain(BaseModel):
    """Nothing about it says how it is written."""

    name: str
    nothing: int | None = None
    many: list[dict[str, Any]] = []
    kept: set[str] = set()
    secret_plan: str = Field(default="hidden", exclude=True)


class Grown(Plain):
    """Adds a model that knows how it is written."""

    inner: Any = None


class Computed(BaseModel):
    x: int = 1

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it for properties
    @property
    def twice(self) -> int:
        return 2 * self.x


class FieldWise(BaseModel):
    x: int = 1

    @field_serializer("x")
    def _write(self, value: int) -> str:
        return f"x{value}"


class Whole(BaseModel):
    x: int = 1

    @model_serializer
    def _write(self) -> dict[str, Any]:
        return {"y": self.x}


class Open(BaseModel, extra="allow"):
    x: int = 1


class Overriding(BaseModel):
    x: int = 1

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return {"mine": self.x}


class Root(RootModel[list[int]]):
    pass


class Validated(BaseModel):
    x: int = 1

    @model_validator(mode="after")
    def _check(self) -> Validated:
        return self


@pytest.mark.parametrize(
    ("model", "written"),
    [
        (Plain(name="n", many=[{"a": None}], kept={"k"}), {"name": "n", "many": [{"a": None}], "kept": {"k"}}),
        (Grown(name="n", inner=Computed()), {"name": "n", "many": [], "kept": set(), "inner": {"x": 1, "twice": 2}}),
        (Computed(), {"x": 1, "twice": 2}),
        (FieldWise(), {"x": "x1"}),
        (Whole(), {"y": 1}),
        (Open.model_validate({"z": 2}), {"x": 1, "z": 2}),
        (Overriding(), {"mine": 1}),
        (Root([1, 2]), [1, 2]),
        (Validated(), {"x": 1}),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseModel) else "",
)
def test_a_model_is_written_as_it_would_write_itself(model: BaseModel, written: Any) -> None:
    # Twice: the class is known the second time.
    assert loads(dumps({"m": model})) == {"m": written}
    assert loads(dumps({"m": model})) == {"m": written}


def test_classes_made_on_the_fly_do_not_pile_up() -> None:
    for number in range(1100):
        assert encode(create_model(f"M{number}", x=(int, 1))()) == {"x": 1}
    assert len(seen_models) <= 1024


def test_a_view_is_written_without_being_touched() -> None:
    payload = ToolPreInvokePayload(name="t", args={"a": [1]})
    view = Views(payload).view()
    context = ContextSource(GlobalContext(request_id="r", state={"s": 1})).fresh()
    assert loads(dumps([view, context])) == [
        {"name": "t", "args": {"a": [1]}},
        {"global_context": {"request_id": "r", "state": {"s": 1}, "metadata": {}}},
    ]
    assert PENDING in raw_dict(view)
    assert PENDING in raw_dict(context)
    view.args["a"].append(2)
    assert loads(dumps(view)) == {"name": "t", "args": {"a": [1, 2]}}
    assert payload.args == {"a": [1]}


def test_hidden_slots_of_a_view_stay_hidden() -> None:
    extensions = Extensions(security=SecurityExtension(labels=frozenset({"PII"})))
    shown = filter_extensions(extensions, frozenset())
    assert b"PII" not in dumps(shown)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_cross_beside_texts_that_speak_of_them(value: float) -> None:
    arrived = loads(dumps({"t": "NaN and Infinity", "v": [1.5, value]}))
    assert arrived["t"] == "NaN and Infinity"
    assert repr(arrived["v"]) == repr([1.5, value])


def test_a_tag_is_found_however_it_is_spelt() -> None:
    assert loads(b'{"\\u0024cpex": "set", "v": [1]}') == {1}
    with pytest.raises(WireError):
        loads(b'{"$\\u0063pex": "pickle", "v": []}')


def test_what_the_faster_writer_and_reader_refuse_crosses_all_the_same() -> None:
    deep: Any = "\ud800"
    for _ in range(300):
        deep = [deep]
    assert loads(dumps(deep)) == deep
