from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "stores.md"


def test_the_example_of_the_page_prints_what_the_page_says() -> None:
    found = dict(re.findall(r"^```(python|text)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M))
    run = subprocess.run(
        [sys.executable, "-c", found["python"]], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, found["text"]), run.stderr
