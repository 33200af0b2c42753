"""The messages of the wire are what the `.proto` says, and mean what our models mean."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from proto_stubs import COMMAND, FOLDER, generated

from cpex.framework import GlobalContext, PluginContext, PluginResult, PluginViolation
from cpex.framework.external import proto_convert as convert
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.wire import WireError


def test_the_modules_are_made_from_the_proto() -> None:
    fresh = generated()
    for name in ("plugin_service_pb2.py", "plugin_service_pb2_grpc.py"):
        assert (FOLDER / name).read_text(encoding="utf-8") == fresh[name], f"run: {COMMAND}"


def test_the_file_and_the_package_have_the_names_of_release_0_1() -> None:
    assert (messages.DESCRIPTOR.name, messages.DESCRIPTOR.package) == ("plugin_service.proto", "cpex")


def test_the_addresses_of_release_0_1_lead_to_the_same_messages() -> None:
    module = importlib.import_module("cpex.framework.external.grpc.proto.plugin_service_pb2")
    assert module.InvokeHookRequest is messages.InvokeHookRequest


CONTEXT = PluginContext(
    global_context=GlobalContext(
        request_id="r", user={"id": "u", "n": None}, tenant_id="t", state={"a": [1.5, "x"]}, metadata={"m": True}
    ),
    state={"own": {"deep": [None]}},
)


@pytest.mark.parametrize("user", [None, "ann", {"email": "a@b.c"}])
def test_a_context_survives_the_messages(user: Any) -> None:
    context = CONTEXT.model_copy(deep=True)
    context.global_context.user = user
    assert convert.proto_context_to_pydantic(convert.pydantic_context_to_proto(context)) == context


def test_numbers_come_back_as_floats() -> None:
    assert convert.struct_to_dict(convert.dict_to_struct({"n": 3}))["n"] == 3.0


def test_whole_numbers_of_settings_come_back_as_integers() -> None:
    settings = {
        "n": 3,
        "deep": [{"minus": -1, "zero": 0}],
        "half": 0.5,
        "edge": 2**53,
        "on": True,
        "t": "3.0",
        "x": None,
    }
    read = convert.struct_to_settings(convert.dict_to_struct(settings))
    # `==` would not tell a float from an integer.
    assert json.dumps(read, sort_keys=True) == json.dumps(settings, sort_keys=True)
    beyond = convert.struct_to_settings(convert.dict_to_struct({"n": 2**53 + 2}))["n"]
    assert isinstance(beyond, float)


def test_values_survive_a_struct_however_empty_they_are() -> None:
    values = {"e": {}, "l": [], "n": None, "deep": [[], {}, None, [{"a": {}}], True, "NaN"], "t": "x", "i": 3, "f": 1.5}
    assert convert.struct_to_dict(convert.dict_to_struct(values)) == values


def test_a_struct_with_a_number_that_is_not_finite_is_refused() -> None:
    struct = Struct()
    struct.update({"a": [float("inf")]})
    with pytest.raises(WireError, match="holds what is no JSON: inf"):
        convert.struct_to_dict(struct)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object, {1}, 10**400, "\ud800"], ids=lambda each: repr(each)[:9]
)
def test_what_has_no_place_in_a_struct_is_refused(value: Any) -> None:
    with pytest.raises(WireError, match="do not fit a protobuf Struct"):
        convert.dict_to_struct({"v": value})


def test_a_violation_survives_the_messages() -> None:
    violation = PluginViolation(reason="r", description="d", code="C", details={"a": [1.5]}, mcp_error_code=-3)
    violation.plugin_name = "p"
    back = convert.proto_violation_to_pydantic(convert.pydantic_violation_to_proto(violation))
    assert (back, back.plugin_name) == (violation, "p")


def test_metadata_of_a_denial_keeps_its_types_and_only_what_is_safe() -> None:
    metadata = {"flag": True, "n": 2**40, "share": 0.5, "text": "secret", "bad name": 1, "nan": float("nan")}
    proto = convert.denial_metadata_to_proto(metadata)
    back = convert.denial_metadata_from_proto(proto)
    assert back == {"flag": True, "n": 2**40, "share": 0.5}
    assert {name: type(value) for name, value in back.items()} == {"flag": bool, "n": int, "share": float}


def test_too_much_metadata_of_a_denial_yields_nothing() -> None:
    proto = messages.DenialMetadata()
    for number in range(17):
        proto.fields[f"k{number}"].integer = number
    assert convert.denial_metadata_from_proto(proto) == {}


def test_a_result_base_updates_a_result() -> None:
    violation = PluginViolation(reason="r", description="d", code="C")
    source = PluginResult[Any](
        continue_processing=False, violation=violation, metadata={"m": "x"}, denial_metadata={"n": 1}
    )
    target = PluginResult[Any]()
    convert.update_pydantic_result_from_proto_base(target, convert.pydantic_result_to_proto_base(source))
    assert (target.continue_processing, target.violation, target.metadata) == (False, violation, {"m": "x"})
    assert target.denial_metadata == {"n": 1}


def test_an_error_without_a_message_is_no_error() -> None:
    response = messages.InvokeHookResponse(plugin_name="p")
    response.error.code = "X"
    assert "error" not in convert.proto_to_answer(response)


def test_an_update_of_a_context_replaces_own_maps_and_keeps_shared_state_when_none_came() -> None:
    context = CONTEXT.model_copy(deep=True)
    convert.update_pydantic_context_from_proto(context, messages.PluginContext())
    assert (context.state, context.metadata, context.global_context.state) == ({}, {}, {"a": [1.5, "x"]})
