"""Asking repositories for their plugins: against a server that speaks GitHub's search and content pages over TLS."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from certificates import self_signed

from cpex.framework.settings import settings
from cpex.tools.catalog import PluginCatalog

MANIFEST = {
    "name": "other",
    "kind": "guard.plugin.Guard",
    "description": "d",
    "author": "a",
    "version": "1.10",
    "tags": [],
    "available_hooks": [],
    "default_configs": None,
}
FILES = {
    "plugins/guard/pyproject.toml": '[project]\nname = "guard"\n',
    "plugins/guard/plugin-manifest.yaml": yaml.safe_dump(MANIFEST),
    "plugins/guard/plugin-manifest-1.9.yaml": yaml.safe_dump({**MANIFEST, "version": "1.9"}),
    "broken/pyproject.toml": "no toml",
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cpex: None) -> Iterator[list[Any]]:
    """Requests that arrive at a server which has one repository, `/team/plugins`."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked.append((url.path, self.headers["Authorization"]))
            status, document = 200, self.found(url.path, parse_qs(url.query).get("q", [""])[0])
            if document is None:
                status, document = 404, {}
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def found(self, path: str, query: str) -> Any:
            if path == "/search/code":
                words = dict(word.split(":", 1) for word in query.split())
                if words["repo"] != "team/plugins":
                    return None
                names = [
                    each
                    for each in FILES
                    if each.startswith(words.get("path", ""))
                    and each.rpartition("/")[2].startswith(words["filename"])
                    and each.endswith(words["extension"])
                ]
                return {"items": [{"path": each} for each in names]}
            content = FILES.get(unquote(path).removeprefix("/repos/team/plugins/contents/"))
            return None if content is None else {"content": base64.b64encode(content.encode()).decode()}

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    monkeypatch.setenv("PLUGINS_GITHUB_API", f"localhost:{server.server_address[1]}")
    monkeypatch.setenv("PLUGINS_REPO_URLS", "https://host/team/plugins, https://host/team/absent")
    monkeypatch.setenv("PLUGINS_GITHUB_TOKEN", "secret-token")
    monkeypatch.chdir(tmp_path)
    yield asked
    server.shutdown()
    server.server_close()
    thread.join(30)


def test_manifests_of_repositories_come_into_the_catalogue(host: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    catalog = PluginCatalog()
    assert catalog.update_catalog_with_pyproject() is False
    manifest = catalog.find("GUARD")
    assert manifest is not None
    assert (manifest.kind, manifest.version) == ("isolated_venv", "1.10")
    assert manifest.default_config == {"class_name": "guard.plugin.Guard"}
    assert manifest.monorepo is not None
    assert manifest.monorepo.package_source == "https://host/team/plugins#subdirectory=plugins/guard"
    versions = catalog.versions("guard")
    assert versions is not None
    assert versions.latest is not None
    assert (versions.latest.version, len(versions.versions)) == ("1.10", 2)
    assert {authorization for _, authorization in host} == {"Bearer secret-token"}
    assert "broken/pyproject.toml of https://host/team/plugins is left out" in caplog.text
    assert "https://host/team/absent is left out" in caplog.text
    assert "secret-token" not in caplog.text


def test_without_a_token_or_a_repository_that_answers_it_failed(
    host: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PLUGINS_REPO_URLS", "https://host/team/absent")
    settings.cache_clear()
    assert PluginCatalog().update_catalog_with_pyproject() is True
    monkeypatch.delenv("PLUGINS_GITHUB_TOKEN")
    settings.cache_clear()
    assert PluginCatalog().update_catalog_with_pyproject() is True
    assert "set PLUGINS_GITHUB_TOKEN" in caplog.text
