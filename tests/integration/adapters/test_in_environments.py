"""Adapters of frameworks that have an environment of their own: their cases, run there."""

from __future__ import annotations

import importlib
import re

import pytest
from integration.adapters.environment import CASES, IndexUnreachable, run_cases

EXTRAS = sorted(path.stem.removeprefix("cases_").replace("_", "-") for path in CASES.glob("cases_*.py"))


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_cases_of_a_framework_pass_in_its_environment(extra: str) -> None:
    try:
        assert run_cases(extra) >= 6
    except IndexUnreachable as error:
        pytest.skip(f"the framework could not be fetched: {error}")


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_adapter_without_its_framework_names_the_extra(extra: str) -> None:
    module = extra.replace("-", "_")
    with pytest.raises(ImportError, match=re.escape(f"`pip install 'cpex[{extra}]'` brings it")):
        importlib.import_module(f"cpex.adapters.{module}")
