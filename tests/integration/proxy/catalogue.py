"""A server of the SDK with lists of several pages, which change, and with calls that never end.

`python catalogue.py pipes`, or `http PORT`, or `https PORT CERTIFICATE KEY`. All sessions of a process share what it
remembers of calls, so that one session may ask what became of another's.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)

SIZE, PAGE = 23, 10
TOOLS = ("change", "say", "hang", "heard", "die", "count", "ask", "routed")
REGION = {"type": "string", "x-mcp-header": "Region"}
SCHEMAS = {"routed": {"type": "object", "properties": {"region": REGION}}}


class Calls:
    """What became of calls of `hang`."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.news = anyio.Event()

    def tell(self) -> None:
        self.news.set()
        self.news = anyio.Event()


calls = Calls()


def page_of(params: types.PaginatedRequestParams | None) -> tuple[range, str | None]:
    """Numbers of a page's entries, and the cursor of the next one."""
    start = int(params.cursor) if params is not None and params.cursor is not None else 0
    end = min(start + PAGE, SIZE)
    return range(start, end), str(end) if end < SIZE else None


async def list_tools(_: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    numbers, cursor = page_of(params)
    names = [*(TOOLS if numbers.start == 0 else ()), *(f"tool-{number:02}" for number in numbers)]
    tools = [types.Tool(name=name, input_schema=SCHEMAS.get(name, {"type": "object"})) for name in names]
    for tool in tools[-len(numbers) :]:
        tool.title = f"Tool {int(tool.name[-2:])}"
        tool.annotations = types.ToolAnnotations(read_only_hint=True)
    return types.ListToolsResult(tools=tools, next_cursor=cursor)


async def list_prompts(_: Any, params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
    numbers, cursor = page_of(params)
    return types.ListPromptsResult(
        prompts=[types.Prompt(name=f"prompt-{number:02}") for number in numbers], next_cursor=cursor
    )


async def list_resources(_: Any, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    numbers, cursor = page_of(params)
    listed = [types.Resource(uri=f"shelf://{NAME}/{number:02}", name=f"{number:02}") for number in numbers]
    return types.ListResourcesResult(resources=listed, next_cursor=cursor)


async def list_templates(_: Any, params: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
    numbers, cursor = page_of(params)
    listed = [
        types.ResourceTemplate(uri_template=f"box://{NAME}/{number:02}/{{item}}", name=f"{number:02}")
        for number in numbers
    ]
    return types.ListResourceTemplatesResult(resource_templates=listed, next_cursor=cursor)


async def read_resource(_: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=params.uri, text=f"{NAME}: {params.uri}")])


async def get_prompt(_: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
    text = types.TextContent(text=f"{NAME}: {params.name}")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=text)])


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult | types.InputRequiredResult:
    args = params.arguments or {}
    text = f"{NAME}: {params.name}"
    if params.name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if params.name == "hang":
        calls.begun += 1
        calls.tell()
        try:
            await anyio.sleep_forever()
        finally:
            calls.ended += 1
            calls.tell()
    if params.name == "heard":
        while calls.begun < args.get("begun", 0) or calls.ended < args.get("ended", 0):
            await calls.news.wait()
        text = f"{calls.begun} begun, {calls.ended} ended"
    if params.name == "say":
        await ctx.session.send_log_message("info", "here")
    if params.name == "change":
        await ctx.session.send_tool_list_changed()
        await ctx.session.send_prompt_list_changed()
        await ctx.session.send_resource_list_changed()
        await ctx.session.send_resource_updated(f"shelf://{NAME}/00")
        for event in (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged()):
            await bus.publish(event)
        await bus.publish(ResourceUpdated(f"shelf://{NAME}/00"))
    if params.name == "count":
        for number in range(args["to"]):
            await ctx.session.report_progress(number, args["to"], f"of {args['whose']}")
        text = f"counted for {args['whose']}"
    if params.name == "routed":
        text = f"{NAME}: {args.get('region')}"
    if params.name == "ask":
        answers = params.input_responses
        if not answers:
            form = types.ElicitRequestFormParams(message="Who are you?", requested_schema=WHO)
            asked = types.ElicitRequest(params=form)
            return types.InputRequiredResult(input_requests={"who": asked}, request_state="asked")
        text = f"{params.request_state}: {answers['who'].model_dump()['content']}"
    return types.CallToolResult(content=[types.TextContent(text=text)])


WHO: Any = {"type": "object", "properties": {"name": {"type": "string"}}}
bus = InMemorySubscriptionBus()
NAME = os.environ.get("CATALOGUE", "one")
server = Server(
    "catalogue",
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscriptions_listen=ListenHandler(bus),
)


async def pipes() -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def http(port: str, certificate: str | None = None, key: str | None = None) -> None:
    tls: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key}
    # Idle connections are cut after 5 s by default: on a busy machine a call may just be on its way.
    config = uvicorn.Config(server.streamable_http_app(), port=int(port), timeout_keep_alive=600, **tls)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    way, *rest = sys.argv[1:]
    anyio.run(pipes) if way == "pipes" else anyio.run(http, *rest)
