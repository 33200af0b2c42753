"""How well personal data is found, and how fast, beside the recognisers of `presidio-analyzer` in the same run.

Usage: `python -m benchmarks.pii [--quick] [--seed N] [--json PATH]`. Prints three tables in Markdown. Exit codes: 0 it
was measured, 1 it could not be, 2 usage. The page docs/plugins/pii_redaction.md tells how to read the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pii.environment import ROOT, IndexUnreachable, presidio_python


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options; a wrong one ends the program with a message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pii", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few texts and rounds: a try-out, not a figure")
    parser.add_argument("--seed", type=int, default=20260101, help="equal seeds invent equal texts")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write everything to this file")
    parser.add_argument("--python", type=Path, help="interpreter that has presidio-analyzer and the generators")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure in the other environment, and print."""
    options = parse(words)
    try:
        python = options.python or presidio_python(generators=True)
    except IndexUnreachable as error:
        print(f"error: the packages to compare with could not be fetched: {error}", file=sys.stderr)
        print("help: name an interpreter that has them with --python", file=sys.stderr)
        return 1
    count, rounds = (200, 2) if options.quick else (2000, 9)
    # The generators walk over sets, whose order depends on the hash seed.
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
    command = [str(python), "-m", "benchmarks.pii.compare", str(options.seed), str(count), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"error: the comparison ended with status {done.returncode}; its messages stand above", file=sys.stderr)
        return 1
    document: dict[str, Any] = json.loads(done.stdout)
    print("\n".join(report(document)))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def report(document: dict[str, Any]) -> Iterator[str]:
    """The tables: what was found, how fast, and how slow it is at worst."""
    corpora: dict[str, Any] = document["corpora"]
    yield "| text | type | labels | recall | presidio | precision | presidio |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for name, corpus in corpora.items():
        for type_, sides in corpus["types"].items():
            mine, other = sides["ours"], sides["presidio"]
            figures = (mine["recall"], other["recall"], mine["precision"], other["precision"])
            yield f"| {name} | `{type_}` | {mine['labels']:,} | " + " | ".join(f"{it:.3f}" for it in figures) + " |"
    yield ""
    yield "| text | labels per 1,000 characters | cut into | MB/s | presidio | times |"
    yield "|---|---:|---|---:|---:|---:|"
    cuts = {"texts": "texts of {} characters", "long": "16 kB", "phone": "texts of {} characters, phone alone"}
    for name, corpus in corpora.items():
        for cut, words in cuts.items():
            speed = corpus["speed"][cut]
            yield (
                f"| {name} | {corpus['labels_per_1000_characters']:.1f} "
                f"| {words.format(round(corpus['characters'] / corpus['texts']))} "
                f"| {speed['ours']:.1f} | {speed['presidio']:.2f} | {speed['times']:.1f} |"
            )
    yield ""
    yield "| phone regions | seconds for a megabyte of digits made to be slow |"
    yield "|---|---:|"
    for regions, seconds in document["hostile"].items():
        yield f"| {regions} | {seconds:.1f} |"


if __name__ == "__main__":
    sys.exit(main())
