"""The public addresses of the models, and what execution records may hold."""

import subprocess
import sys

import pytest

from cpex.framework import models


def test_every_public_model_has_its_address_in_the_package():
    for name in models.__all__:
        assert getattr(models, name) is not None
    assert set(models.__all__) <= set(dir(models))
    assert sorted(models.__all__) == sorted(name for name in models._HOMES if not name.startswith("_"))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'PluginConfg'"):
        models.PluginConfg


@pytest.mark.parametrize(
    "first",
    ["cpex.framework.extensions", "cpex.framework.models.result", "cpex.framework.errors", "cpex.framework.utils"],
)
def test_modules_of_the_lowest_group_can_be_imported_in_any_order(first):
    # A fresh interpreter: in this one everything is loaded already.
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {first}"], check=True, timeout=60)


def test_manifests_and_parsers_are_not_loaded_with_the_configuration():
    code = (
        "import sys, cpex.framework.utils, cpex.framework.settings, cpex.framework.errors\n"
        "heavy = {'yaml', 'dotenv', 'packaging', 'starlette', 'orjson', 'cpex.framework.models.manifest'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_record_texts_are_cut_at_256_bytes_and_never_inside_a_character():
    cut = models._truncate("é" * 200)

    assert cut == "é" * 126 + "…"
    assert len(cut.encode()) <= models._MAX_STRING_LEN == 256
    assert models._truncate("a" * 256) == "a" * 256
    assert len(models._truncate("a" * 257).encode()) == 256
    assert models._truncate_opt(None) is None


def test_text_that_utf8_cannot_express_does_not_fail_a_record():
    assert models._truncate("a\ud800b") == "a?b"


def test_records_name_at_most_64_settings():
    keys = models._collect_config_keys({**{f"key{i}": i for i in range(100)}})

    assert len(keys) == models._MAX_CONFIG_KEYS == 64
    assert models._collect_config_keys({1: 2, "a" * 300: 3}) == ["1", "a" * 253 + "…"]
    assert models._collect_config_keys(None) == []
