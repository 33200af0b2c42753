"""Asking repositories of many plugins what they have, through the code search of their host.

Source: GitHub REST API, "Search code" and "Get repository content".
"""

from __future__ import annotations

import base64
import logging
import tomllib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from cpex.framework.models.manifest import Monorepo
from cpex.framework.settings import get_catalog_settings
from cpex.tools.manifests import manifest_of

if TYPE_CHECKING:
    import httpx2

    from cpex.tools.catalog import PluginCatalog

__all__ = ["refresh_catalog"]

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0


def refresh_catalog(catalog: PluginCatalog) -> bool:
    """Read the manifests of the configured repositories into the catalogue.

    What cannot be read is left out, with a WARNING.

    Returns:
        True when it FAILED: there is no token, or no repository could be read; False when it is done.
    """
    import httpx2

    settings = get_catalog_settings()
    if settings.github_token is None:
        logger.warning("The catalogue is not refreshed: set PLUGINS_GITHUB_TOKEN")
        return True
    headers = {
        "Authorization": f"Bearer {settings.github_token.get_secret_value()}",
        "Accept": "application/vnd.github+json",
    }
    done = 0
    base = f"https://{settings.github_api}"
    with httpx2.Client(base_url=base, headers=headers, timeout=_TIMEOUT_S) as client:
        for url in filter(None, (each.strip() for each in settings.repo_urls.split(","))):
            try:
                _read_repository(client, url, catalog)
                done += 1
            except (httpx2.HTTPError, OSError, ValueError, RuntimeError, KeyError) as error:
                logger.warning("Repository %s is left out: %s", url, str(error) or type(error).__name__)
    return done == 0


def _read_repository(client: httpx2.Client, url: str, catalog: PluginCatalog) -> None:
    repository = urlsplit(url).path.strip("/").removesuffix(".git")
    for found in _search(client, f"repo:{repository} filename:pyproject extension:toml"):
        folder = str(PurePosixPath(found).parent)
        try:
            project = tomllib.loads(_content(client, repository, found))["project"]["name"]
            _read_folder(client, url, repository, "" if folder == "." else folder, str(project), catalog)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            logger.warning("%s of %s is left out: %s", found, url, error)


def _read_folder(
    client: httpx2.Client, url: str, repository: str, folder: str, project: str, catalog: PluginCatalog
) -> None:
    within = f" path:{folder}" if folder else ""
    target = catalog.folder / Path(project).name
    for path in _search(client, f"repo:{repository}{within} filename:versions extension:json"):
        target.mkdir(parents=True, exist_ok=True)
        (target / "versions.json").write_text(_content(client, repository, path), encoding="utf-8")
    for path in _search(client, f"repo:{repository}{within} filename:plugin-manifest extension:yaml"):
        text = _content(client, repository, path)
        manifest = manifest_of(text, project, require_runnable=False)
        source = f"{url}#subdirectory={folder}" if folder else url
        manifest.name = project
        manifest.monorepo = Monorepo(package_source=source, repo_url=url, package_folder=folder)
        relative = Path(Path(project).name) / PurePosixPath(path).name
        catalog.save_manifest(manifest, relative)
        catalog.update_plugin_version_registry(manifest, relative)
    catalog.manifests = []


def _search(client: httpx2.Client, query: str) -> list[str]:
    """Paths of the files that a search finds."""
    response = client.get("/search/code", params={"q": query, "per_page": 100})
    response.raise_for_status()
    items: list[dict[str, Any]] = response.json().get("items", [])
    return [str(each["path"]) for each in items]


def _content(client: httpx2.Client, repository: str, path: str) -> str:
    response = client.get(f"/repos/{repository}/contents/{quote(path)}")
    response.raise_for_status()
    return base64.b64decode(response.json()["content"]).decode("utf-8")
