"""Names and imports, and reading objects of unknown shape."""

import json
import logging
import subprocess
import sys
import textwrap
from types import MappingProxyType, SimpleNamespace

import pytest

from cpex.framework.protocols import MessageLike, PromptResultLike
from cpex.framework.utils import (
    StructuredData,
    coerce_messages,
    coerce_nested,
    find_package_path,
    get_attr,
    import_module,
    manifest_filename_for_class,
    normalize_content_type,
    parse_class_name,
)


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("text", "expected"), [("Text/HTML; q=1", "text/html"), (" ; x", ""), ("", ""), (None, ""), (5, "")]
)
def test_content_types_are_reduced_to_their_base(text, expected):
    assert normalize_content_type(text) == expected


@pytest.mark.parametrize(("name", "parts"), [("a.b.C", ("a.b", "C")), ("C", ("", "C")), ("", ("", ""))])
def test_class_paths_are_split_at_the_last_dot(name, parts):
    assert parse_class_name(name) == parts


@pytest.mark.parametrize(
    ("cls", "stem"),
    [("pkg.module.Class", "pkg-module-Class"), ("..", "plugin"), ("  a b ", "a-b"), ("-a_b-", "a_b"), ("é.x", "é-x")],
)
def test_manifest_file_names_are_made_of_the_class_path(cls, stem):
    assert manifest_filename_for_class(cls) == f"{stem}.plugin-manifest.yaml"


@pytest.mark.parametrize(
    "name", ["os", "os.path", "sys", "subprocess", "socket", "http.server", "importlib.util", "runpy"]
)
def test_modules_of_the_system_are_refused(name):
    with pytest.raises(ImportError, match="blocked for security"):
        import_module(name)


@pytest.mark.parametrize("name", ["../plugin", "a/b", "a\\b", "..plugin"])
def test_paths_are_no_module_names(name):
    with pytest.raises(ImportError, match="contains invalid characters"):
        import_module(name)


def test_other_modules_are_imported_and_missing_ones_are_import_errors():
    assert import_module("json") is json
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        import_module("no_such_module")
    # Only the names themselves are blocked, not what begins like them.
    with pytest.raises(ModuleNotFoundError):
        import_module("osx")


def test_a_package_is_found_by_its_manifest_then_by_its_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "my_plugin-1.0.dist-info"
    folder = tmp_path / "some_folder"
    info.mkdir()
    folder.mkdir()
    (folder / "plugin-manifest.yaml").write_text("name: x\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "RECORD").write_text("some_folder/plugin-manifest.yaml,,\n")
    package = tmp_path / "plain_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")

    assert find_package_path("my-plugin") == folder
    assert find_package_path("plain_plugin") == package
    assert find_package_path("plain-plugin") == package


@pytest.mark.parametrize("name", ["no-such-plugin", "", "a.b.c"])
def test_a_package_that_is_not_installed_is_an_error_that_names_it(name):
    with pytest.raises(RuntimeError, match=f"package '{name}' is not installed"):
        find_package_path(name)


@pytest.mark.parametrize(
    ("obj", "name", "expected"),
    [
        (None, "a", "-"),
        (SimpleNamespace(a=1), "a", 1),
        (SimpleNamespace(a=0), "a", "-"),
        (SimpleNamespace(), "a", "-"),
        ({"a": 1}, "a", 1),
        ({"a": ""}, "a", "-"),
        ({"items": [1]}, "items", [1]),
        ({}, "items", "-"),
        (MappingProxyType({"a": 1}), "a", 1),
        (StructuredData(a=1), "a", 1),
    ],
)
def test_values_are_read_from_objects_and_mappings_and_falsy_ones_become_the_default(obj, name, expected):
    assert get_attr(obj, name, "-") == expected


def test_attributes_of_a_mapping_class_of_the_hosts_are_read():
    class Row(dict):
        table = "t"

    assert get_attr(Row(), "table") == "t"
    assert get_attr(Row(), "missing") == ""


def test_dicts_become_objects_at_every_depth_of_dicts_and_lists():
    coerced = coerce_nested([{"a": [{"b": 1}]}, ({"c": 1},), 5])

    assert coerced[0].a[0].b == 1
    assert coerced[1:] == [({"c": 1},), 5]
    assert coerced[0].model_dump() == {"a": [{"b": 1}]}
    assert coerced[0] == StructuredData(a=[StructuredData(b=1)])


def test_keys_that_are_named_like_methods_are_read_as_items():
    data = coerce_nested({"copy": 1, "self": 2, "model_config": 3})

    assert (data["copy"], data["self"], data["model_config"]) == (1, 2, 3)
    assert "copy" in data
    assert "missing" not in data
    assert data.model_dump() == {"copy": 1, "self": 2, "model_config": 3}
    with pytest.raises(KeyError):
        data["missing"]


def test_structured_data_can_be_changed():
    data = StructuredData(a=1)
    data.a = 2
    data.b = 3

    assert data.model_dump() == {"a": 2, "b": 3}


def test_coercion_stops_at_twenty_levels():
    value, levels = coerce_nested(nested(40)), 0
    while isinstance(value, StructuredData):
        value, levels = value["a"], levels + 1

    assert (levels, type(value)) == (20, dict)


def test_large_containers_are_left_as_they_are_with_a_warning(caplog):
    large = {str(number): {"a": 1} for number in range(501)}

    with caplog.at_level(logging.WARNING):
        assert coerce_nested(large) is large
        assert isinstance(coerce_nested(dict(list(large.items())[:500])), StructuredData)

    assert len(caplog.records) == 1
    assert "dict of 501 entries is left as it is" in caplog.text


def test_keys_that_are_no_text_are_refused():
    with pytest.raises(TypeError):
        coerce_nested({1: 2})


def test_only_dicts_of_a_list_of_messages_are_coerced():
    host_message = SimpleNamespace(role="user", content="x")
    coerced = coerce_messages([{"role": "user", "content": {"text": "x"}}, host_message, [{"b": 1}]])

    assert coerced[0].content.text == "x"
    assert coerced[1] is host_message
    assert coerced[2] == [{"b": 1}]
    assert coerce_messages(({"a": 1},)) == ({"a": 1},)


def test_hosts_objects_satisfy_the_protocols_by_their_attributes():
    assert isinstance(SimpleNamespace(role="user", content="x"), MessageLike)
    assert isinstance(coerce_nested({"role": "user", "content": "x"}), MessageLike)
    assert not isinstance(SimpleNamespace(role="user"), MessageLike)
    assert isinstance(SimpleNamespace(messages=[], description=None), PromptResultLike)
    assert not isinstance(StructuredData(messages=[]), PromptResultLike)

    class Own(MessageLike):
        role, content = "user", "x"

    assert isinstance(Own(), MessageLike)
    assert not isinstance(SimpleNamespace(role="user", content="x"), Own)


def told_without(package: str, code: str) -> str:
    """What a fresh interpreter prints in which a package is not there, whatever is installed."""
    code = f"import sys\nsys.modules[{package!r}] = None\nimport cpex.framework.utils as utils\n" + textwrap.dedent(
        code
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def test_the_json_response_says_what_it_needs_when_it_is_missing():
    told = told_without(
        "starlette",
        """
        try:
            utils.ORJSONResponse
        except ImportError as error:
            print(error)
        """,
    )
    assert told == "`ORJSONResponse` needs the package `starlette`; install it with `pip install starlette`"


def test_the_json_response_is_rendered_without_orjson_too():
    told = told_without(
        "orjson",
        """
        import datetime, uuid
        content = {1: datetime.date(2030, 1, 2), "id": uuid.UUID(int=1), "nan": float("nan"), "text": "é"}
        response = utils.ORJSONResponse(content)
        print(response.media_type, response.body.decode())
        """,
    )
    assert told == (
        'application/json {"1":"2030-01-02","id":"00000000-0000-0000-0000-000000000001","nan":null,"text":"é"}'
    )


def test_unknown_names_are_attribute_errors():
    import cpex.framework.utils as utils

    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        utils.nonsense
