"""A package index that tests run: the simple repository API in HTML and JSON, and the JSON API of projects.

Source: Python Packaging User Guide, "Simple repository API".
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.utils import canonicalize_name, parse_wheel_filename


class PackageIndex:
    """A running index over a folder of wheels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.tampered: set[str] = set()
        """Files that arrive changed."""
        self.without_json = False
        self.without_hashes = False
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                status, kind, body = index.answer(unquote(self.path), self.headers.get("Accept", ""))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://localhost:{self._http.server_address[1]}/simple"

    def files_of(self, project: str) -> list[Path]:
        name = canonicalize_name(project)
        return [each for each in sorted(self.folder.glob("*.whl")) if parse_wheel_filename(each.name)[0] == name]

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        parts = path.strip("/").split("/")
        missing = 404, "text/plain", b"no"
        if parts[0] == "files":
            data = (self.folder / parts[1]).read_bytes()
            return 200, "application/octet-stream", data + b"x" if parts[1] in self.tampered else data
        files = self.files_of(parts[1]) if len(parts) > 1 else []
        if not files:
            return missing
        if parts[0] == "pypi":
            if self.without_json:
                return missing
            chosen = [each for each in files if len(parts) < 4 or str(parse_wheel_filename(each.name)[1]) == parts[2]]
            urls = [{"filename": each.name, "url": "", "digests": self._hashes(each)} for each in chosen]
            return (200, "application/json", json.dumps({"urls": urls}).encode()) if chosen else missing
        if "vnd.pypi.simple.v1+json" in accept and "html" not in accept:
            listed = [
                {"filename": each.name, "url": f"/files/{each.name}", "hashes": self._hashes(each)} for each in files
            ]
            return 200, "application/vnd.pypi.simple.v1+json", json.dumps({"files": listed}).encode()
        # Without a fragment, so that pip itself does not compare.
        links = "".join(f'<a href="/files/{each.name}">{each.name}</a>\n' for each in files)
        return 200, "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def _hashes(self, file: Path) -> dict[str, str]:
        return {} if self.without_hashes else {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(30)


@contextmanager
def running_index(folder: Path) -> Iterator[PackageIndex]:
    """An index for a while."""
    index = PackageIndex(folder)
    index.start()
    try:
        yield index
    finally:
        index.close()
