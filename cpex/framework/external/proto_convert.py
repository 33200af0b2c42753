"""Between our models and the messages of gRPC and the Unix socket, in the plain form.

A `Struct` has one kind of number, a float, no order of keys, and no word for what JSON lacks. What that loses is listed
in docs/reference/external.md, "gRPC"; `restoring.py` brings back what a plugin did not change. Frames avoid all of it.

Fields that the messages lack are lost: a global context's `user_context` and `content_type`, a violation's HTTP fields
when it travels as a message (in a result it travels whole).
"""

from __future__ import annotations

import json
import math
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from pydantic_core import to_json

from cpex.framework.errors import sanitize_denial_metadata
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.wire import WireError
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.result import MCP_INTERNAL_ERROR, PluginResult, PluginViolation

__all__ = [
    "answer_to_proto",
    "denial_metadata_from_proto",
    "denial_metadata_to_proto",
    "dict_to_struct",
    "populate_proto_result",
    "proto_context_to_dict",
    "proto_context_to_pydantic",
    "proto_global_context_to_pydantic",
    "proto_result_to_dict",
    "proto_to_answer",
    "proto_violation_to_pydantic",
    "pydantic_context_to_proto",
    "pydantic_global_context_to_proto",
    "pydantic_result_to_proto_base",
    "pydantic_violation_to_proto",
    "struct_to_dict",
    "struct_to_settings",
    "update_pydantic_context_from_proto",
    "update_pydantic_result_from_proto_base",
]

_EXACT = 2**53
"""Up to here, and down to its negative, every integer is a double of its own."""


def dict_to_struct(values: dict[str, Any]) -> Struct:
    """JSON values as a `Struct`.

    Raises:
        WireError: A value has no place in one: no JSON, not finite, or nested too deep.
    """
    struct = Struct()
    try:
        # A Struct takes numbers that are not finite, and whoever reads it then fails. A text may speak of them, too.
        text = to_json(values)
        if b"NaN" in text or b"Infinity" in text:
            json.dumps(values, allow_nan=False)
        # Half of what `json_format` takes for it.
        struct.update(values)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise WireError(f"the values do not fit a protobuf Struct: {type(error).__name__}") from error
    return struct


def struct_to_dict(struct: Struct) -> dict[str, Any]:
    """A `Struct` as JSON values; every number is a float.

    Raises:
        WireError: It holds a number that is not finite.
    """
    return {name: _value(each) for name, each in struct.fields.items()}


def struct_to_settings(struct: Struct) -> dict[str, Any]:
    """A `Struct` that was made of what stands in a configuration: whole numbers are integers again.

    A Struct knows doubles only. `3` is written where an integer is meant, and does where a fraction is; beyond 2^53 a
    double no longer says which integer it was, and stays one.

    Raises:
        WireError: It holds a number that is not finite.
    """
    settings: dict[str, Any] = _whole(struct_to_dict(struct))
    return settings


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT else value


def _value(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        if not math.isfinite(value.number_value):
            raise WireError(f"a protobuf Struct holds what is no JSON: {value.number_value}")
        return value.number_value
    if kind == "struct_value":
        return struct_to_dict(value.struct_value)
    if kind == "list_value":
        return [_value(each) for each in value.list_value.values]
    return value.bool_value if kind == "bool_value" else None


# Contexts.


def pydantic_global_context_to_proto(context: GlobalContext) -> messages.GlobalContext:
    """A global context as a message; empty maps are not sent."""
    return _global_to_proto(context.model_dump(mode="json", exclude_none=True))


def _global_to_proto(values: dict[str, Any]) -> messages.GlobalContext:
    proto = messages.GlobalContext(
        request_id=values.get("request_id") or "",
        server_id=values.get("server_id") or "",
        tenant_id=values.get("tenant_id") or "",
    )
    user = values.get("user")
    if isinstance(user, str):
        proto.user_string = user
    elif isinstance(user, dict):
        proto.user_struct.CopyFrom(dict_to_struct(user))
    _set_maps(proto, values)
    return proto


def proto_global_context_to_pydantic(proto: messages.GlobalContext) -> GlobalContext:
    """A message as a global context; an empty text is no id."""
    return GlobalContext.model_validate(_global_to_dict(proto))


def _global_to_dict(proto: messages.GlobalContext) -> dict[str, Any]:
    user: Any = None
    if proto.WhichOneof("user_value") == "user_string":
        user = proto.user_string
    elif proto.WhichOneof("user_value") == "user_struct":
        user = struct_to_dict(proto.user_struct)
    return {
        "request_id": proto.request_id,
        "server_id": proto.server_id or None,
        "tenant_id": proto.tenant_id or None,
        "user": user,
        **_maps_of(proto),
    }


def pydantic_context_to_proto(context: PluginContext) -> messages.PluginContext:
    """A plugin context as a message; empty maps are not sent."""
    return context_to_proto(context.model_dump(mode="json", exclude_none=True))


def context_to_proto(values: dict[str, Any]) -> messages.PluginContext:
    """A plugin context in the plain form as a message."""
    proto = messages.PluginContext(global_context=_global_to_proto(values.get("global_context") or {}))
    _set_maps(proto, values)
    return proto


def proto_context_to_dict(proto: messages.PluginContext) -> dict[str, Any]:
    """A message as a plugin context in the plain form."""
    return {"global_context": _global_to_dict(proto.global_context), **_maps_of(proto)}


def proto_context_to_pydantic(proto: messages.PluginContext) -> PluginContext:
    """A message as a plugin context."""
    return PluginContext.model_validate(proto_context_to_dict(proto))


def update_pydantic_context_from_proto(context: PluginContext, proto: messages.PluginContext) -> None:
    """Take over what a plugin did: state and metadata as they are, the shared state unless it is empty."""
    values = proto_context_to_dict(proto)
    context.state, context.metadata = values["state"], values["metadata"]
    if shared := values["global_context"]["state"]:
        context.global_context.state = shared


def _set_maps(proto: messages.PluginContext | messages.GlobalContext, values: dict[str, Any]) -> None:
    if state := values.get("state"):
        proto.state.CopyFrom(dict_to_struct(state))
    if metadata := values.get("metadata"):
        proto.metadata.CopyFrom(dict_to_struct(metadata))


def _maps_of(proto: messages.PluginContext | messages.GlobalContext) -> dict[str, Any]:
    return {"state": struct_to_dict(proto.state), "metadata": struct_to_dict(proto.metadata)}


# Violations and results.


def pydantic_violation_to_proto(violation: PluginViolation) -> messages.PluginViolation:
    """A violation as a message; code 0 stands for none."""
    proto = messages.PluginViolation(
        reason=violation.reason,
        description=violation.description,
        code=violation.code,
        plugin_name=violation.plugin_name,
        mcp_error_code=violation.mcp_error_code or 0,
    )
    if violation.details:
        proto.details.CopyFrom(dict_to_struct(violation.details))
    return proto


def proto_violation_to_pydantic(proto: messages.PluginViolation) -> PluginViolation:
    """A message as a violation."""
    violation = PluginViolation(
        reason=proto.reason,
        description=proto.description,
        code=proto.code,
        details=struct_to_dict(proto.details),
        mcp_error_code=proto.mcp_error_code or None,
    )
    if proto.plugin_name:
        violation.plugin_name = proto.plugin_name
    return violation


def pydantic_result_to_proto_base(result: PluginResult[Any]) -> messages.PluginResultBase:
    """What all results have, as a message."""
    proto = messages.PluginResultBase(continue_processing=result.continue_processing)
    if result.violation is not None:
        proto.violation.CopyFrom(pydantic_violation_to_proto(result.violation))
    if result.metadata:
        proto.metadata.CopyFrom(dict_to_struct(result.metadata))
    if result.denial_metadata is not None:
        proto.denial_metadata.CopyFrom(denial_metadata_to_proto(result.denial_metadata))
    return proto


def update_pydantic_result_from_proto_base(result: PluginResult[Any], proto: messages.PluginResultBase) -> None:
    """Take over what a message says of a result."""
    result.continue_processing = proto.continue_processing
    if proto.HasField("violation"):
        result.violation = proto_violation_to_pydantic(proto.violation)
    if proto.HasField("metadata"):
        result.metadata = struct_to_dict(proto.metadata)
    if proto.HasField("denial_metadata"):
        result.denial_metadata = denial_metadata_from_proto(proto.denial_metadata)


def denial_metadata_to_proto(metadata: Any) -> messages.DenialMetadata:
    """Numbers and flags about a denial, typed; what is not safe to export is left out."""
    proto = messages.DenialMetadata()
    for name, value in sanitize_denial_metadata(metadata).items():
        kind = "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "floating"
        setattr(proto.fields[name], kind, value)
    return proto


def denial_metadata_from_proto(proto: messages.DenialMetadata) -> dict[str, Any]:
    """The same back; judged again, because the sender may not have."""
    kinds = {name: metric.WhichOneof("value") for name, metric in proto.fields.items()}
    return dict(
        sanitize_denial_metadata(
            {name: getattr(proto.fields[name], kind) for name, kind in kinds.items() if kind is not None}
        )
    )


def populate_proto_result(result: dict[str, Any], response: messages.InvokeHookResponse) -> None:
    """Put a result's dump into an answer."""
    values = {name: value for name, value in result.items() if name != "denial_metadata"}
    response.result.CopyFrom(dict_to_struct(values))
    if result.get("denial_metadata") is not None:
        response.result_base.denial_metadata.CopyFrom(denial_metadata_to_proto(result["denial_metadata"]))


def proto_result_to_dict(response: messages.InvokeHookResponse) -> dict[str, Any]:
    """A result's dump from an answer."""
    result = struct_to_dict(response.result)
    if response.result_base.HasField("denial_metadata"):
        result["denial_metadata"] = denial_metadata_from_proto(response.result_base.denial_metadata)
    return result


# Whole answers, as `Service.invoke_hook` makes them.


def answer_to_proto(answer: dict[str, Any]) -> messages.InvokeHookResponse:
    """An answer in the plain form as a message.

    Raises:
        WireError: A value has no place in one.
    """
    response = messages.InvokeHookResponse(plugin_name=answer.get("plugin_name") or "")
    error = answer.get("error")
    if error is not None:
        response.error.message = error.get("message") or "Unknown error"
        response.error.plugin_name = error.get("plugin_name") or "unknown"
        response.error.code = error.get("code") or ""
        response.error.mcp_error_code = error.get("mcp_error_code") or MCP_INTERNAL_ERROR
        if error.get("details"):
            response.error.details.CopyFrom(dict_to_struct(error["details"]))
        return response
    populate_proto_result(answer.get("result") or {}, response)
    if answer.get("context") is not None:
        response.context.CopyFrom(context_to_proto(answer["context"]))
    return response


def proto_to_answer(response: messages.InvokeHookResponse) -> dict[str, Any]:
    """A message as an answer in the plain form; an error without a message is none."""
    answer: dict[str, Any] = {"plugin_name": response.plugin_name}
    if response.error.message:
        error = response.error
        answer["error"] = {
            "message": error.message,
            "plugin_name": error.plugin_name,
            "code": error.code,
            "details": struct_to_dict(error.details),
            "mcp_error_code": error.mcp_error_code or MCP_INTERNAL_ERROR,
        }
        return answer
    if response.HasField("context"):
        answer["context"] = proto_context_to_dict(response.context)
        if not answer["context"]["global_context"]["state"]:
            # Empty maps are not sent, so an empty one says nothing.
            del answer["context"]["global_context"]["state"]
    if response.HasField("result"):
        answer["result"] = proto_result_to_dict(response)
    return answer
