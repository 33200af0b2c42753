"""Either end of the line may be the published package, used here as it comes from the index.

Its host looks for the worker's file below its working directory and nowhere else; so it is given a working directory in
which `cpex` leads to the package whose worker is to be used.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from handmade_wheels import ROOT
from integration.published.environment import HOST
from isolated_environments import host, invoke, isolated, pid_of
from pydantic import SecretStr

from benchmarks.sides import RIVAL_HOME, SideError, rival_python
from cpex.framework import GlobalContext, PluginConfig, PluginError, ToolPreInvokePayload
from cpex.framework.extensions import Extensions, HttpExtension, SecurityExtension
from cpex.framework.hooks.identity import IdentityPayload

PLUGIN = """
class Mine(Plugin):
    async def tool_pre_invoke(self, payload, context, extensions):
        print("noise")
        os.write(1, b"more noise\\n")
        return await getattr(self, payload.name)(payload, context, extensions)

    async def rewrite(self, payload, context, extensions):
        told = {"seen": sorted(payload.args), "mode": str(self.config.mode), "who": context.global_context.user}
        args = {**payload.args, **told}
        return ToolPreInvokeResult(modified_payload=payload.model_copy(update={"args": args}), metadata={"m": 1})

    async def deny(self, payload, context, extensions):
        return denial("NO")

    async def fail(self, payload, context, extensions):
        raise ValueError("broken")

    async def die(self, payload, context, extensions):
        os.kill(os.getpid(), signal.SIGKILL)

    async def remember(self, payload, context, extensions):
        context.state["n"] = 1
        return ToolPreInvokeResult()

    async def look(self, payload, context, extensions):
        if extensions is None:
            return ToolPreInvokeResult(metadata={"seen": None})
        labels = sorted(extensions.security.labels)
        security = extensions.security.model_copy(update={"labels": extensions.security.labels | {"SEEN"}})
        headers = dict(extensions.http.headers)
        changed = extensions.model_copy(update={"security": security})
        return ToolPreInvokeResult(metadata={"seen": [labels, headers]}, modified_extensions=changed)

    async def identity_resolve(self, payload, context):
        token = payload.raw_token.get_secret_value()
        return ToolPreInvokeResult(metadata={"length": len(token), "stars": set(token) == {"*"}, "h": payload.headers})
"""


@pytest.fixture(scope="module", autouse=True)
def _published() -> None:
    try:
        rival_python()
    except SideError as error:
        pytest.skip(f"the published package cannot be installed: {error}")


# Our host, its worker.


def with_its_worker(tmp_path: Path, **fields: Any) -> tuple[PluginConfig, Path]:
    """A plugin whose environment holds the published package."""
    config, folder = isolated(tmp_path, PLUGIN, **fields)
    venv = folder / "mine" / ".venv"
    venv.unlink()
    venv.symlink_to(RIVAL_HOME)
    return config, folder


async def test_our_host_runs_a_plugin_in_its_worker(tmp_path: Path) -> None:
    args = {"tags": {"a"}, "when": date(2024, 2, 29), "n": 3}
    async with host(*with_its_worker(tmp_path, mode="transform", on_error="ignore")) as manager:
        result = await invoke(manager, "rewrite", **args)
        # What came back as it went is the caller's own. The plugin is told the mode in which its worker judges nothing.
        told = {"seen": ["n", "tags", "when"], "mode": "sequential", "who": None}
        assert result.modified_payload is not None
        assert result.modified_payload.args == {**args, **told}
        assert result.metadata == {"m": 1}


@pytest.mark.conformance("V16")
async def test_our_host_decides_what_denials_and_failures_in_its_worker_mean(tmp_path: Path) -> None:
    async with host(*with_its_worker(tmp_path, mode="audit")) as manager:
        result = await invoke(manager, "deny")
        (record,) = result.executions
        assert (result.continue_processing, record.requested_allow, record.error_code) == (True, False, "NO")
        failed = await invoke(manager, "fail")
        assert [record.status for record in failed.executions] == ["error"]


async def test_a_failure_in_its_worker_is_told_and_its_death_is_noticed(tmp_path: Path) -> None:
    async with host(*with_its_worker(tmp_path)) as manager:
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "fail")
        text = """RuntimeError("Worker process error: Unexpected error: ValueError('broken')")"""
        assert raised.value.error.message == text
        first = pid_of(manager)
        with pytest.raises(PluginError, match="the worker of plugin `mine` was ended by signal SIGKILL"):
            await invoke(manager, "die")
        assert (await invoke(manager, "deny")).continue_processing is False
        assert pid_of(manager) != first


async def test_calls_of_our_host_are_served_by_its_worker_in_turn(tmp_path: Path) -> None:
    async with host(*with_its_worker(tmp_path)) as manager:
        names = ["deny", "rewrite"] * 25
        results = await asyncio.gather(*(invoke(manager, name) for name in names))
        assert [result.continue_processing for result in results] == [False, True] * 25


@pytest.mark.conformance("V20")
async def test_our_host_sends_extensions_to_its_worker_and_takes_changes_back(tmp_path: Path) -> None:
    capabilities = ["read_labels", "append_labels", "read_headers"]
    extensions = Extensions(
        http=HttpExtension(headers={"Accept": "x", "Authorization": "Bearer y"}),
        security=SecurityExtension(labels=frozenset({"PII"})),
        custom={"k": 1},
    )
    async with host(*with_its_worker(tmp_path, capabilities=capabilities)) as manager:
        payload = ToolPreInvokePayload(name="look", args={})
        result, _ = await manager.invoke_hook(
            "tool_pre_invoke", payload, GlobalContext(request_id="r"), extensions=extensions
        )
    assert result.metadata == {"seen": [["PII"], {"Accept": "x"}]}
    assert result.modified_extensions is not None
    assert result.modified_extensions.security is not None
    assert result.modified_extensions.security.labels == {"PII", "SEEN"}
    assert (result.modified_extensions.http, result.modified_extensions.custom) == (extensions.http, {"k": 1})


@pytest.mark.conformance("V20", "D17b.wire")
async def test_our_host_gives_its_worker_a_credential_that_the_plugin_may_have(tmp_path: Path) -> None:
    token = "opaque-but-long-enough"
    payload = IdentityPayload(
        raw_token=SecretStr(token), headers={"Authorization": f"Bearer {token}", "X-Api-Key": "k"}
    )
    for capabilities, told in (([], {"length": 10, "stars": True}), (["read_inbound_credentials"], {"length": 22})):
        config, folder = with_its_worker(tmp_path, hooks=["identity_resolve"], capabilities=capabilities)
        async with host(config, folder) as manager:
            result, _ = await manager.invoke_hook("identity_resolve", payload, GlobalContext(request_id="r"))
        assert result.metadata is not None
        headers = {"Authorization": "Bearer **********", "X-Api-Key": "**********"}
        assert result.metadata == {"stars": False, **told, "h": headers}


async def test_a_plugin_that_its_worker_cannot_load_fails_the_first_call(tmp_path: Path) -> None:
    config, folder = with_its_worker(tmp_path)
    (folder / "mine" / "__init__.py").write_text("import absent_of_all")
    async with host(config, folder) as manager:
        for _ in range(2):
            with pytest.raises(PluginError, match="No module named 'absent_of_all'"):
                await invoke(manager, "deny")


async def test_a_line_of_the_limit_is_one_too_long_for_its_worker_and_is_not_sent(tmp_path: Path) -> None:
    async with host(*with_its_worker(tmp_path, max_content_size=4000)) as manager:
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "deny", text="x" * 3900)
        (size,) = re.findall(r"(\d+) bytes, at most 4000; nothing was sent", raised.value.error.message)
        fitting = 3900 - (int(size) - 4000)
        assert (await invoke(manager, "deny", text="x" * fitting)).continue_processing is False
        with pytest.raises(PluginError, match="4001 bytes, at most 4000; nothing was sent"):
            await invoke(manager, "deny", text="x" * (fitting + 1))


# Its host.


def serve(folder: Path, package: Path, config: PluginConfig, plugin_dirs: Path, *calls: dict[str, Any]) -> Any:
    """Let its host make calls, with the worker of one of the packages. Answers, and what it wrote to standard error."""
    (folder / "cpex").symlink_to(package)
    file = folder / "plugins.yaml"
    entry = json.loads(config.model_dump_json(exclude_unset=True))
    file.write_text(json.dumps({"plugin_dirs": [str(plugin_dirs)], "plugins": [entry]}))
    done = subprocess.run(
        [str(rival_python()), str(HOST)],
        input=json.dumps({"config": str(file), "calls": list(calls)}),
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PLUGINS_", "PYTHON"))},
        cwd=folder,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"hook": "tool_pre_invoke", "payload": {"name": name, "args": {"x": 1}}, **fields}


def its_package() -> Path:
    (found,) = RIVAL_HOME.glob("lib/python*/site-packages/cpex")
    return found


@pytest.mark.parametrize("worker", ["ours", "its own"])
def test_its_host_runs_a_plugin_in_our_package(tmp_path: Path, worker: str) -> None:
    # Its own worker is code of its that runs on our package, in the plugin's environment.
    config, folder = isolated(tmp_path, PLUGIN)
    package = ROOT if worker == "ours" else its_package()
    calls = [call("rewrite"), call("deny"), call("remember"), call("rewrite", context={"user": "ann"})]
    before = (folder / "mine" / ".venv").readlink()
    served, errors = serve(tmp_path, package, config, folder, *calls)
    # It took our record for its own; it would have removed the link in order to build.
    assert (folder / "mine" / ".venv").readlink() == before
    assert served["cpex"] == "0.1.4"
    told = {"x": 1, "seen": ["x"], "mode": "sequential", "who": None}
    first, denied, remembered, again = served["answers"]
    assert (first["payload"]["args"], first["metadata"]) == (told, {"m": 1})
    assert (denied["allowed"], denied["violation"]["code"]) == (False, "NO")
    assert (remembered["allowed"], remembered["payload"]) == (True, None)
    assert again["payload"]["args"] == {**told, "who": "ann"}
    if worker == "ours":
        # Prints go where they do no harm; its own worker lets them between the lines.
        assert "noise" not in errors


def test_its_host_ignores_failures_in_our_worker_as_its_operator_wrote(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, PLUGIN, on_error="ignore", mode="audit")
    served, _ = serve(tmp_path, ROOT, config, folder, call("fail"), call("deny"))
    assert [answer["allowed"] for answer in served["answers"]] == [True, True]


async def test_our_host_takes_its_record_for_our_own(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, PLUGIN)
    record = folder / "mine" / ".cpex" / "venv_cache" / ".venv_metadata.json"
    ours = json.loads(record.read_text())
    theirs = {name: value for name, value in ours.items() if name not in ("classes", "installed")}
    record.write_text(json.dumps(theirs))
    async with host(config, folder) as manager:
        assert (await invoke(manager, "deny")).continue_processing is False
    assert (folder / "mine" / ".venv").is_symlink()
