"""The guard as a guardrail of LiteLLM's real proxy, in a process of its own; its model answers on a local socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Before it is imported: it would fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import httpx
import litellm
import pytest
from integration.adapters.handlers import mask
from litellm.caching.caching import Cache
from ports import free_port
from support import manager_of, plugin

from cpex.adapters.litellm import GuardGuardrail

START_S = 300.0
"""Bound on the wait for a proxy; it takes about ten seconds."""
KEY = {"Authorization": "Bearer sk-operator"}

CONFIG = """
model_list:
  - model_name: house
    litellm_params: {model: openai/house, api_base: "http://127.0.0.1:MODEL/v1", api_key: none}
  - model_name: guarded
    litellm_params: {model: openai/house, api_base: "http://127.0.0.1:MODEL/v1", api_key: none, guardrails: [house]}
  - model_name: dead
    litellm_params: {model: openai/house, api_base: "http://127.0.0.1:CLOSED/v1", api_key: none, max_retries: 0}
guardrails:
  - guardrail_name: house
    litellm_params: &house
      guardrail: cpex.adapters.litellm_proxy.guardrail
      mode: [pre_call, post_call]
      cpex_config: plugins.yaml
  - guardrail_name: lookout
    litellm_params: {<<: *house, mode: logging_only}
  - guardrail_name: missing
    litellm_params: {<<: *house, cpex_config: missing.yaml}
  - guardrail_name: unnamed
    litellm_params: {<<: *house, cpex_config: ""}
  - guardrail_name: parallel
    litellm_params: {<<: *house, run_in_parallel: true}
litellm_settings: {cache: true, cache_params: {type: local, mode: default_off}}
router_settings: {num_retries: 0}
general_settings: {master_key: sk-operator}
"""

PLUGINS = """
plugins:
  - name: house
    kind: house.House
    mode: sequential
    hooks: [cmf.llm_input, cmf.llm_output]
    capabilities: [read_headers]
"""

HOUSE = """
import asyncio
from pathlib import Path

from cpex.framework import Plugin, PluginViolation, hook
from cpex.framework.cmf.rewrite import rewrite_text
from cpex.framework.cmf.text import iter_text
from cpex.framework.hooks.message import MessagePayload, MessageResult

THREE = asyncio.Barrier(3)


def denied(word):
    violation = PluginViolation(reason=f"the word {word}", description="Leave it out.", code="WORD")
    return MessageResult(continue_processing=False, violation=violation)


def said(payload, change):
    message = rewrite_text(payload.message, change)
    return MessageResult(modified_payload=payload.model_copy(update={"message": message}))


class House(Plugin):
    async def shutdown(self):
        Path("shut").write_text("yes")

    @hook("cmf.llm_input", MessagePayload, MessageResult)
    async def ask(self, payload, context):
        text = " ".join(leaf.text for leaf in iter_text(payload.message))
        if "bluebird" in text:
            return denied("bluebird")
        if "crash" in text:
            raise RuntimeError("password is hunter2")
        if text.startswith("echo"):
            context.set_state("asked", text)
            await asyncio.wait_for(THREE.wait(), 60)
        return said(payload, lambda leaf: leaf.text.replace("secret", "***"))

    @hook("cmf.llm_output", MessagePayload, MessageResult)
    async def answer(self, payload, context, extensions):
        text = " ".join(leaf.text for leaf in iter_text(payload.message))
        if "forbidden" in text:
            return denied("forbidden")
        if "who am i" in text:
            http = extensions.http
            return said(payload, lambda leaf: f"{context.global_context.user} {http.headers['x-desk']}")
        if asked := context.get_state("asked"):
            return said(payload, lambda leaf: f"you asked: {asked}")
        return said(payload, lambda leaf: leaf.text.replace("card", "[CARD]") + "!")
"""


class Model(BaseHTTPRequestHandler):
    """Answers with what it was asked, and keeps it."""

    heard: list[str] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        self.heard.append(text)
        message = {"role": "assistant", "content": f"{text}, a card"}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "house", "choices": choices}
        sent = json.dumps({**answer, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def proxy_in(folder: Path, model: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A proxy with the configuration above, and its address."""
    (folder / "config.yaml").write_text(CONFIG.replace("MODEL", str(model)).replace("CLOSED", str(free_port())))
    (folder / "plugins.yaml").write_text(PLUGINS)
    (folder / "house.py").write_text(HOUSE)
    port = free_port()
    command = [Path(sys.executable).with_name("litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
    environment = {**os.environ, "PYTHONPATH": "."}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], cwd=folder, stdout=log, stderr=log, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            try:
                httpx.get(f"{address}/health/liveliness", timeout=5)
                break
            except httpx.TransportError:
                # Nothing tells when it listens; the bound is above.
                time.sleep(0.2)
        yield process, address
    finally:
        process.kill()
        process.wait(60)


@pytest.fixture(scope="module")
def model() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy")


@pytest.fixture(scope="module")
def proxy(folder: Path, model: int) -> Iterator[str]:
    with proxy_in(folder, model) as (_, address):
        yield address


def ask(proxy: str, text: str, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    asked = {"model": "house", "messages": [{"role": "user", "content": text}], "guardrails": ["house"], **body}
    return httpx.post(f"{proxy}/v1/chat/completions", json=asked, headers={**KEY, **(headers or {})}, timeout=60)


def answer(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def test_an_allowed_call_passes_and_its_answer_is_rewritten(proxy: str) -> None:
    assert answer(ask(proxy, "hi")) == "hi, a [CARD]!"


def test_what_goes_to_the_model_is_rewritten(proxy: str) -> None:
    assert answer(ask(proxy, "my secret")) == "my ***, a [CARD]!"
    assert Model.heard[-1] == "my ***"


def test_a_denial_is_a_bad_request_that_says_why_and_the_model_never_hears_of_it(proxy: str) -> None:
    response = ask(proxy, "project bluebird")
    assert response.status_code == 400
    assert response.json()["error"]["message"].endswith("Message: denied: the word bluebird (WORD)")
    assert "project bluebird" not in Model.heard


def test_a_denied_answer_is_withheld(proxy: str) -> None:
    response = ask(proxy, "forbidden")
    assert (response.status_code, "denied: the word forbidden (WORD)" in response.text) == (400, True)
    assert "a card" not in response.text


def test_state_goes_from_pre_to_post_and_parallel_calls_are_kept_apart_whatever_ids_clients_choose(proxy: str) -> None:
    same = {"x-litellm-call-id": "00000000-0000-4000-8000-000000000000"}
    texts = ["echo a", "echo b", "echo c"]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda text: answer(ask(proxy, text, headers=same)), texts))
    assert answers == [f"you asked: {text}" for text in texts]


def test_plugins_know_the_key_and_the_headers_and_not_what_clients_say_of_themselves(proxy: str) -> None:
    said = answer(ask(proxy, "who am i", headers={"x-desk": "7"}, user="mallory"))
    assert said.endswith(" 7")
    assert "mallory" not in said


def test_a_guardrail_that_a_model_names_judges_each_answer_once(proxy: str) -> None:
    assert answer(ask(proxy, "hi", model="guarded", guardrails=[])) == "hi, a [CARD]!"
    assert answer(ask(proxy, "hi", model="guarded")) == "hi, a [CARD]!"


def test_answers_from_the_proxys_cache_are_judged_as_well(proxy: str) -> None:
    kept = {"cache": {"use-cache": True, "ttl": 600}}
    before = len(Model.heard)
    assert [answer(ask(proxy, "keep this", **kept)) for _ in range(2)] == ["keep this, a [CARD]!"] * 2
    assert len(Model.heard) == before + 1


async def test_answers_from_the_cache_of_the_sdk_come_as_plugins_left_them(model: int) -> None:
    # Here, because LiteLLM's cache needs what the proxy is made of.
    litellm.callbacks = [GuardGuardrail(manager_of(plugin(mask, hooks=["cmf.llm_output"])))]
    litellm.cache = Cache(type="local")
    asked = {"model": "openai/house", "api_base": f"http://127.0.0.1:{model}/v1", "api_key": "none", "caching": True}
    messages = [{"role": "user", "content": "a secret"}]
    before, answers = len(Model.heard), []
    try:
        # LiteLLM keeps an answer in the background, and soon has the next one from there.
        while len(answers) < 50 and len(answers) == len(Model.heard) - before:
            answers.append(await litellm.acompletion(**asked, messages=messages, guardrails=["cpex"]))
    finally:
        litellm.cache, litellm.callbacks = None, []
    assert len(Model.heard) - before == len(answers) - 1
    assert {each.choices[0].message.content for each in answers} == {"a ***, a card"}


def test_calls_that_name_no_guardrail_pass_it_by_as_the_page_says(proxy: str) -> None:
    assert answer(ask(proxy, "project bluebird", guardrails=[])) == "project bluebird, a card"


def test_the_mode_cannot_keep_a_guardrail_from_being_called(proxy: str) -> None:
    assert ask(proxy, "project bluebird", guardrails=["lookout"]).status_code == 400


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "there is no such file"),
        ("unnamed", "it does not say which plugins it runs; add `cpex_config: plugins.yaml`"),
        ("parallel", "LiteLLM drops what guardrails with `run_in_parallel` rewrite; leave it out"),
    ],
)
def test_a_guardrail_that_did_not_start_refuses_every_call_and_the_log_says_why(
    proxy: str, folder: Path, name: str, said: str
) -> None:
    response = ask(proxy, "hi", guardrails=[name])
    assert response.status_code == 500
    assert "the guard failed, so the call was refused" in response.text
    (line,) = [line for line in (folder / "log").read_text().splitlines() if f"`{name}` did not start" in line]
    assert said in line


def test_a_plugin_that_fails_refuses_the_call_and_tells_nothing_of_the_inside(proxy: str) -> None:
    response = ask(proxy, "crash")
    assert response.status_code == 500
    assert "plugin `house` failed, so the call was refused" in response.text
    assert "hunter2" not in response.text


@pytest.mark.parametrize("body", [{"path": "embeddings", "input": "hi"}, {"path": "responses", "input": "hi"}])
def test_calls_that_are_no_chat_completions_are_denied(proxy: str, body: dict[str, Any]) -> None:
    asked = {"model": "house", "input": body["input"], "guardrails": ["house"]}
    response = httpx.post(f"{proxy}/v1/{body['path']}", json=asked, headers=KEY, timeout=60)
    assert (response.status_code, "chat completions only" in response.text) == (400, True)


def test_streams_that_plugins_could_not_judge_are_denied(proxy: str) -> None:
    response = ask(proxy, "hi", stream=True)
    assert (response.status_code, "a stream would go past plugins" in response.text) == (400, True)


def test_a_model_that_is_gone_is_an_error_and_the_next_call_is_judged(proxy: str) -> None:
    assert ask(proxy, "hi", model="dead").status_code >= 500
    assert answer(ask(proxy, "hi")) == "hi, a [CARD]!"


@pytest.mark.skipif(os.name == "nt", reason="there is no such signal")
def test_an_interrupt_shuts_the_plugins_down(tmp_path: Path, model: int) -> None:
    with proxy_in(tmp_path, model) as (process, address):
        assert answer(ask(address, "hi")) == "hi, a [CARD]!"
        process.send_signal(signal.SIGINT)
        process.wait(120)
    assert (tmp_path / "shut").read_text() == "yes"
