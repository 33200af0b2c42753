"""The program of the page prints what the page says, against a server with the policy that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from doc_blocks import ROOT, blocks
from pdp_servers import Engine, PdpServer, opa


def policy(facts: Any) -> Any:
    shell = facts["tool"] == "shell"
    return {"allow": True, "deny": [f"no shell for {facts['subject']['id']}"] if shell else []}


def test_the_program_of_the_page_prints_what_the_page_says(
    serve: Callable[[Engine], PdpServer], tmp_path: Path
) -> None:
    shown = blocks("reference/pdp.md")
    (tmp_path / "ask.py").write_text(shown["ask.py"])
    done = subprocess.run(
        [sys.executable, "ask.py"],
        cwd=tmp_path,
        env={**os.environ, "OPA_URL": serve(opa({"cpex/authz": policy})).url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, shown["ask.out"]), done.stderr
