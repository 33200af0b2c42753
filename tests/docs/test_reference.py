"""The reference pages say what the code says, and what they show works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conformance.manifest import anchors
from doc_blocks import noted
from doc_pages import COMMAND, REFERENCE, SCHEMA, pages, schema_text, tables_of, up_to_date
from pydantic import BaseModel
from support import manager_of

from cpex.framework import GlobalContext, PluginConfig, ToolPreInvokePayload, conditions
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.config import ConfigLoader
from cpex.framework.models.config import Config
from cpex.framework.settings import PluginsSettings

DOCS = REFERENCE.parent
OURS = [REFERENCE / f"{name}.md" for name in ("settings", "configuration", "conditions", "hooks")]
WRITTEN = [*OURS, DOCS / "glossary.md", DOCS / "threat-model.md"]


def code(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.stem)
def test_the_tables_are_up_to_date(page: Path) -> None:
    assert page in pages()
    text = page.read_text(encoding="utf-8")
    assert text == up_to_date(text), f"run: {COMMAND}"


def test_the_published_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), f"run: {COMMAND}"


def test_every_setting_has_its_line() -> None:
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    wanted = {f"PLUGINS_{name.upper()}" for name in PluginsSettings.model_fields}
    assert sorted(name for name in wanted if f"`{name}`" not in text) == []


def sections(cls: type[BaseModel]) -> set[str]:
    """A model of the configuration and all that it is made of, by the path below `cpex.framework`."""
    found = {f"{cls.__module__.removeprefix('cpex.framework.')}.{cls.__name__}"}
    for field in cls.model_fields.values():
        for each in _inside(field.annotation):
            found |= sections(each)
    return found


def _inside(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for part in getattr(annotation, "__args__", ()) for each in _inside(part)]


def test_every_section_of_the_configuration_has_its_table() -> None:
    shown = tables_of(REFERENCE / "configuration.md")
    # These differ from one that is shown by a word, which the page says.
    alike = {"models.config.PromptTemplate", "models.config.ResourceTemplate", "models.tls.GRPCClientTLSConfig"}
    assert sorted(path for path in sections(Config) - alike if f"fields {path}" not in shown) == []


def test_every_payload_and_reply_has_its_table() -> None:
    registry = get_hook_registry()
    shown = " ".join(tables_of(REFERENCE / "hooks.md"))
    classes = {registry.get_payload_type(hook) for hook in registry.get_registered_hooks()}
    classes |= {registry.reply_type(hook) for hook in registry.get_registered_hooks()} - {None, dict}
    names = {each.__name__ for each in classes if each is not None and each.__module__.startswith("cpex.")}
    # A header map has no fields, and the payload before a request is the one after it without two of them.
    assert sorted(name for name in names if name not in shown) == ["HttpHeaderPayload", "HttpPreRequestPayload"]


def test_the_handlers_that_are_shown_can_be_registered() -> None:
    for block in noted("docs/reference/hooks.md"):
        names: dict[str, Any] = {}
        exec(block, names)
        config = PluginConfig(name="mail", kind="shown.Mail", hooks=["tool_pre_invoke", "mail_pre_send"])
        manager = manager_of(names["Mail"](config))
        assert manager.has_hooks_for("mail_pre_send")


def test_the_example_of_conditions_means_what_the_page_says() -> None:
    (block,) = code(REFERENCE / "conditions.md", "yaml")
    (plugin,) = ConfigLoader.load_text(block, file="page").config.plugins or []
    mail = ToolPreInvokePayload(name="send_mail")

    def looks(user: str, tenant: str, payload: Any = mail) -> bool:
        request = GlobalContext(request_id="r", user=user, tenant_id=tenant)
        return conditions.payload_matches(payload, "tool_pre_invoke", plugin.conditions, request)

    assert [looks("a@b.example", "acme"), looks("a@partner.example", "other")] == [True, True]
    assert looks("a@b.example", "other") is False
    assert looks("a@b.example", "acme", ToolPreInvokePayload(name="read_mail")) is False


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.is_file() or (heading and heading not in anchors(target)):
            lost.append(link)
    assert lost == []
