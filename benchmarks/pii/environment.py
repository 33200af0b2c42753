"""The environment that holds `presidio-analyzer` and what comes with it, made on first use and kept.

It is not among the packages that the tests install: with its language library it is ten times as large as all of them.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.environments import ROOT, Environment, IndexUnreachable

__all__ = ["ROOT", "IndexUnreachable", "presidio_python"]

PRESIDIO = ("presidio-analyzer==2.2.366",)
GENERATORS = ("Faker==40.63.0", "pandas>=3,<4", "presidio-anonymizer>=2.2.364", "python-dotenv>=1.2")
"""What invents labelled text."""
EVALUATOR = ("presidio-evaluator==0.3.2",)
"""Without what it asks for beside these: libraries of models, which the sentences do not need."""


def presidio_python(*, generators: bool = False) -> Path:
    """The environment's interpreter; it runs this working tree.

    Args:
        generators: Whether the packages that invent labelled text are needed too.

    Raises:
        IndexUnreachable: The packages are not installed and could not be fetched.
        subprocess.CalledProcessError: They were fetched, and this package does not install beside them.
    """
    environment = Environment(".venv-presidio")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    with environment.lacking("analyzer", f"{project}{PRESIDIO}") as missing:
        if missing:
            environment.create(PRESIDIO[0])
            environment.fetch(*PRESIDIO)
            # Editable, so that a kept environment runs the working tree.
            environment.add("--editable", str(ROOT))
    if generators:
        with environment.lacking("generators", f"{GENERATORS}{EVALUATOR}") as missing:
            if missing:
                environment.fetch(*GENERATORS)
                environment.fetch("--no-deps", *EVALUATOR)
    return environment.python
