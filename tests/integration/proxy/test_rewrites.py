"""What plugins change on the way: arguments reach the server changed, results the client, in every form of hook."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from integration.proxy.servers import TIMEOUT_S, Command, client_of, node_server, plugins, proxied
from integration.proxy.test_everything import outcome

PLUGIN = """
from cpex.framework import Plugin, PluginResult, hook


def changed(payload, **fields):
    return PluginResult(modified_payload=payload.model_copy(update=fields))


class Typed(Plugin):
    async def tool_pre_invoke(self, payload, context):
        context.state["asked"] = payload.name
        if payload.name == "alias":
            return changed(payload, name="echo", args={"message": "by another name"})
        return changed(payload, args={**payload.args, "message": payload.args.get("message", "") + " (typed before)"})

    async def tool_post_invoke(self, payload, context):
        text = payload.result["content"][0]["text"]
        block = {"type": "text", "text": f"{text} (typed after {context.state['asked']})"}
        return changed(payload, result={**payload.result, "content": [block]})

    async def prompt_pre_fetch(self, payload, context):
        return changed(payload, args={**payload.args, "city": "Paris"})

    async def prompt_post_fetch(self, payload, context):
        payload.result.messages[0].content.text += " (typed)"
        return changed(payload, result=payload.result)

    async def resource_pre_fetch(self, payload, context):
        return changed(payload, uri=payload.uri.replace("another", "text"))

    async def resource_post_fetch(self, payload, context):
        contents = [{**each, "text": "(typed)"} for each in payload.content["contents"]]
        return changed(payload, content={"contents": contents})


class Common(Plugin):
    def _with(self, payload, **fields):
        part = payload.message.content[0]
        part = part.model_copy(update={"content": part.content.model_copy(update=fields)})
        return changed(payload, message=payload.message.model_copy(update={"content": [part]}))

    @hook("cmf.tool_pre_invoke")
    async def call(self, payload, context):
        given = payload.message.content[0].content.arguments
        return self._with(payload, arguments={"message": given["message"] + " (common before)"})

    @hook("cmf.tool_post_invoke")
    async def result(self, payload, context):
        content = payload.message.content[0].content.content
        block = {**content["content"][0], "text": content["content"][0]["text"] + " (common after)"}
        return self._with(payload, content={**content, "content": [block]})

    @hook("cmf.resource_post_fetch")
    async def read(self, payload, context):
        return self._with(payload, content="(common)")


class Trail(Plugin):
    pass


def noting(name):
    async def note(self, payload, context):
        with open(self.config.config["path"], "a") as file:
            file.write(f"{name} {context.global_context.server_id}\\n")
        return PluginResult()

    return note


for name in ("tool", "prompt", "resource"):
    for step in ("pre", "post"):
        typed = f"{name}_{step}_{'invoke' if name == 'tool' else 'fetch'}"
        setattr(Trail, typed, noting(typed))
        setattr(Trail, f"cmf_{typed}", hook(f"cmf.{typed}")(noting(f"cmf.{typed}")))
    setattr(Trail, f"{name}_list", noting(f"{name}_list"))


class Odd(Plugin):
    async def tool_post_invoke(self, payload, context):
        return changed(payload, result="a text, which is no result of a tool")
"""
TYPED = (
    "[tool_pre_invoke, tool_post_invoke, prompt_pre_fetch, prompt_post_fetch, resource_pre_fetch, resource_post_fetch]"
)
COMMON = "[cmf.tool_pre_invoke, cmf.tool_post_invoke, cmf.resource_post_fetch]"


@pytest.fixture
def everything() -> Command:
    return node_server("server-everything")


def behind(everything: Command, folder: Path, *entries: str) -> Command:
    (folder / "changing.py").write_text(PLUGIN, encoding="utf-8")
    listed = "".join(f"  - {{{each}, mode: sequential}}\n" for each in entries)
    return proxied(everything, plugins(folder, f"plugin_dirs: [{folder}]\nplugins:\n{listed}"))


async def said(command: Command, *calls: tuple[str, dict[str, Any]]) -> list[str]:
    async with asyncio.timeout(TIMEOUT_S), client_of(command) as session:
        return [(await session.call_tool(name, args)).content[0].text for name, args in calls]


async def test_typed_hooks_change_calls_and_results(everything: Command, tmp_path: Path) -> None:
    command = behind(everything, tmp_path, f"name: typed, kind: changing.Typed, hooks: {TYPED}")
    assert await said(command, ("echo", {"message": "hi"}), ("alias", {})) == [
        "Echo: hi (typed before) (typed after echo)",
        "Echo: by another name (typed after alias)",
    ]
    async with asyncio.timeout(TIMEOUT_S), client_of(command) as session:
        prompt = await session.get_prompt("args-prompt", {"city": "Berlin"})
        assert prompt.messages[0].content.text == "What's weather in Paris? (typed)"
        read = await session.read_resource("demo://resource/dynamic/another/1")
        assert (read.contents[0].text, read.contents[0].mime_type) == ("(typed)", "text/plain")


async def test_hooks_of_the_common_format_see_what_typed_ones_left(everything: Command, tmp_path: Path) -> None:
    entries = (
        f"name: common, priority: 1, kind: changing.Common, hooks: {COMMON}",
        "name: typed, priority: 2, kind: changing.Typed, hooks: [tool_pre_invoke, tool_post_invoke]",
    )
    command = behind(everything, tmp_path, *entries)
    assert await said(command, ("echo", {"message": "hi"})) == [
        "Echo: hi (typed before) (common before) (typed after echo) (common after)"
    ]
    async with asyncio.timeout(TIMEOUT_S), client_of(command) as session:
        read = await session.read_resource("demo://resource/dynamic/text/1")
        assert (read.contents[0].text, read.contents[0].mime_type) == ("(common)", "text/plain")


async def test_a_result_that_is_none_any_more_is_withheld(everything: Command, tmp_path: Path) -> None:
    command = behind(everything, tmp_path, "name: odd, kind: changing.Odd, hooks: [tool_post_invoke]")
    async with asyncio.timeout(TIMEOUT_S), client_of(command) as session:
        assert await outcome(session.call_tool("echo", {"message": "hi"})) == {
            "code": -32603,
            "message": "a plugin turned the result of `tools/call` into what is no result of it",
            "data": None,
        }


async def test_every_hook_runs_in_its_place_and_knows_the_server(everything: Command, tmp_path: Path) -> None:
    steps = {name: "invoke" if name == "tool" else "fetch" for name in ("tool", "prompt", "resource")}
    runs = {name: [f"{name}_{when}_{step}" for when in ("pre", "post")] for name, step in steps.items()}
    both = {name: [each for hook in typed for each in (hook, f"cmf.{hook}")] for name, typed in runs.items()}
    hooks = [*(hook for each in both.values() for hook in each), *(f"{name}_list" for name in steps)]
    trail = tmp_path / "trail"
    entry = f"name: trail, kind: changing.Trail, hooks: [{', '.join(hooks)}], config: {{path: {trail}}}"
    async with asyncio.timeout(TIMEOUT_S), client_of(behind(everything, tmp_path, entry)) as session:
        await session.list_tools()
        await session.call_tool("echo", {"message": "hi"})
        await session.list_prompts()
        await session.get_prompt("simple-prompt")
        await session.list_resources()
        await session.list_resource_templates()
        await session.read_resource("demo://resource/dynamic/text/1")
    expected = ["tool_list", *both["tool"], "prompt_list", *both["prompt"], *["resource_list"] * 2, *both["resource"]]
    assert trail.read_text().splitlines() == [f"{hook} server" for hook in expected]
