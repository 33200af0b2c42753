"""The redactor with the real `presidio-analyzer`, in an environment of its own: its language library is large."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.pii.environment import ROOT, IndexUnreachable, presidio_python

# The first test installs the library.
pytestmark = pytest.mark.timeout(1500)

HOST = """
import asyncio, json, sys

from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.framework import GlobalContext, PluginConfig, PluginContext, ToolPostInvokePayload


def make_analyzer():
    # A model cannot be had without a download; an engine of patterns is called in the same way.
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngine
    from presidio_analyzer.predefined_recognizers import CryptoRecognizer, UsPassportRecognizer

    class NoModel(NlpEngine):
        def load(self): pass
        def is_loaded(self): return True
        def process_text(self, text, language): return None
        def process_batch(self, texts, language, **options): return iter(())
        def is_stopword(self, word, language): return False
        def is_punct(self, word, language): return False
        def get_supported_entities(self): return []
        def get_supported_languages(self): return ["en"]

    registry = RecognizerRegistry(recognizers=[CryptoRecognizer(), UsPassportRecognizer()])
    return AnalyzerEngine(registry=registry, nlp_engine=NoModel(), supported_languages=["en"])


async def main(config, texts):
    plugin = PIIRedactionPlugin(PluginConfig(name="guard", kind="x.Y", config=config))
    answers = []
    for text in texts:
        for _ in range(2):
            context = PluginContext(global_context=GlobalContext(request_id="r"))
            result = await plugin.tool_post_invoke(ToolPostInvokePayload(name="t", result=text), context)
            before, text = text, text if result.modified_payload is None else result.modified_payload.result
            if not answers or answers[-1][0] != text:
                answers.append([text, result.metadata.get("guard", {}).get("pii", {})])
    return answers


if __name__ == "__main__":
    try:
        print(json.dumps(asyncio.run(main(*json.load(sys.stdin)))))
    except ValueError as error:
        print(json.dumps(str(error)))
"""
TEXT = "passport 912803456 of joe@example.com paid 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ from 10.0.0.9"


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return presidio_python()
    except IndexUnreachable as error:
        pytest.skip(f"presidio-analyzer could not be fetched from the package index: {error}")


def answers(python: Path, folder: Path, presidio: dict[str, Any], *texts: str, **config: Any) -> Any:
    (folder / "pii_host.py").write_text(HOST, encoding="utf-8")
    done = subprocess.run(
        [python, "pii_host.py"],
        input=json.dumps([{"presidio": presidio, **config}, texts]),
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_recognizers_find_what_is_left_and_a_second_run_changes_nothing(python: Path, tmp_path: Path) -> None:
    settings = {"recognizers": ["UsPassportRecognizer", "CryptoRecognizer", "EmailRecognizer"], "min_score": 0.05}
    assert answers(python, tmp_path, settings, TEXT) == [
        [
            "passport [US_PASSPORT-REDACTED] of [EMAIL-REDACTED] paid [CRYPTO-REDACTED] from [IP-REDACTED]",
            {"us_passport": 1, "email": 1, "crypto": 1, "ip": 1},
        ]
    ]


def test_an_engine_that_the_host_builds_is_asked_too(python: Path, tmp_path: Path) -> None:
    settings = {"analyzer": "pii_host.make_analyzer", "entities": ["CRYPTO"]}
    assert answers(python, tmp_path, settings, TEXT, types=["email"], mode="mask") == [
        [
            "passport 912803456 of j***@example.com paid **********************************  from 10.0.0.9".replace(
                "  ", " "
            ),
            {"email": 1, "crypto": 1},
        ]
    ]


def test_results_below_the_score_are_left_alone(python: Path, tmp_path: Path) -> None:
    settings = {"recognizers": ["UsPassportRecognizer"], "min_score": 0.9}
    assert answers(python, tmp_path, settings, "passport 912803456") == [["passport 912803456", {}]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"recognizers": ["NoSuch"]},
            "presidio-analyzer has no recognizer `NoSuch`; known: its predefined_recognizers",
        ),
        (
            {"analyzer": "pii_host.no_such"},
            "there is no function `pii_host.no_such` that builds an analyzer; check the dotted path",
        ),
    ],
)
def test_what_does_not_exist_stops_the_start(
    python: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    assert answers(python, tmp_path, settings, "x") == message
