"""What a service answers to the messages that gRPC and the Unix socket share; the transports add how they travel."""

from __future__ import annotations

import logging
from typing import Any

from cpex.framework.errors import convert_exception_to_error
from cpex.framework.external.port import LinkError, Service, plain_answer
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import (
    answer_to_proto,
    context_to_proto,
    dict_to_struct,
    proto_context_to_dict,
    proto_to_answer,
    struct_to_dict,
)

__all__ = ["answer_of", "configuration", "configurations", "hook_answer", "plain_question"]

logger = logging.getLogger(__name__)


# The serving end.


async def configuration(service: Service, request: messages.GetPluginConfigRequest) -> messages.GetPluginConfigResponse:
    """What the service says about one plugin."""
    config = await service.get_plugin_config(request.name)
    if config is None:
        return messages.GetPluginConfigResponse(found=False)
    return messages.GetPluginConfigResponse(found=True, config=dict_to_struct(config))


async def configurations(service: Service) -> messages.GetPluginConfigsResponse:
    """What the service says about all of them."""
    return messages.GetPluginConfigsResponse(
        configs=[dict_to_struct(config) for config in await service.get_plugin_configs()]
    )


async def hook_answer(service: Service, request: messages.InvokeHookRequest) -> messages.InvokeHookResponse:
    """Run a hook and write down what came of it, in the form in which it was asked for."""
    if request.frame:
        return messages.InvokeHookResponse(frame=await service.exchange(request.frame))
    try:
        answer = await service.invoke_hook(
            request.hook_type,
            request.plugin_name,
            struct_to_dict(request.payload),
            proto_context_to_dict(request.context),
        )
        return answer_to_proto(plain_answer(answer))
    # The values of a plugin's answer may not fit the message; that is an answer, too.
    except Exception as error:
        logger.warning("Hook %s of plugin %s has no answer that can be sent", request.hook_type, request.plugin_name)
        return failed(request, convert_exception_to_error(error, request.plugin_name).message)


def failed(
    request: messages.InvokeHookRequest, message: str, code: str = "INTERNAL_ERROR"
) -> messages.InvokeHookResponse:
    """An answer that says why there is none."""
    error = {"message": message, "plugin_name": request.plugin_name, "code": code}
    return answer_to_proto({"plugin_name": request.plugin_name, "error": error})


# The asking end.


def plain_question(
    hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
) -> messages.InvokeHookRequest:
    """A question in the plain form.

    Raises:
        WireError: A value has no place in a message.
    """
    return messages.InvokeHookRequest(
        hook_type=hook_type,
        plugin_name=plugin_name,
        payload=dict_to_struct(payload),
        context=context_to_proto(context),
    )


def answer_of(response: messages.InvokeHookResponse) -> dict[str, Any]:
    """An answer in the plain form; see `Service.invoke_hook`."""
    return proto_to_answer(response)


def frame_of(response: messages.InvokeHookResponse) -> bytes:
    """The frame of an answer.

    Raises:
        LinkError: There is none, only an error that says why.
    """
    if response.frame:
        return response.frame
    text = response.error.message or "the server sent no frame"
    raise LinkError(text, code="remote", sent=True)
