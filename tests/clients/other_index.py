"""A package index that is not ours: it has packages of our names, in a higher version."""

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

OTHER = "99.0"
NAMES = ("buntime", "buntime-sdk", "buntime-cli")
NPM_NAME, NPM_VERSION = "@buntime/sdk", "99.0.0"


@dataclass(frozen=True)
class OtherIndex:
    """`asked`: the paths of all requests so far."""

    url: str
    asked: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def serving(cls) -> Iterator[Self]:
        with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
            index = cls(f"http://127.0.0.1:{server.server_address[1]}")
            server.index = index  # type: ignore[attr-defined]
            thread = threading.Thread(target=server.serve_forever, name="other index")
            thread.start()
            yield index
            server.shutdown()
            thread.join()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        index: OtherIndex = self.server.index  # type: ignore[attr-defined]
        index.asked.append(self.path)
        content = _contents(index.url).get(self.path.lower().replace("%2f", "/"), b"")
        self.send_response(200 if content else 404)
        self.send_header("Content-Type", "text/html" if self.path.startswith("/simple") else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _contents(url: str) -> Mapping[str, bytes]:
    """Path → content."""
    tarball = _npm_package()
    found = {f"/{NPM_NAME}": _npm_manifest(url, tarball), "/sdk.tgz": tarball}
    for name in NAMES:
        file = f"{name.replace('-', '_')}-{OTHER}-py3-none-any.whl"
        found[f"/simple/{name}/"] = f'<!doctype html><a href="/files/{file}">{file}</a>'.encode()
        found[f"/files/{file}"] = _wheel(name)
    return found


def _wheel(name: str) -> bytes:
    folder, content = f"{name.replace('-', '_')}-{OTHER}.dist-info", io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {OTHER}\n")
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{folder}/RECORD", f"{folder}/METADATA,,\n{folder}/WHEEL,,\n{folder}/RECORD,,\n")
    return content.getvalue()


def _npm_package() -> bytes:
    manifest, content = json.dumps({"name": NPM_NAME, "version": NPM_VERSION}).encode(), io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(manifest)
        archive.addfile(entry, io.BytesIO(manifest))
    return content.getvalue()


def _npm_manifest(url: str, tarball: bytes) -> bytes:
    integrity = f"sha512-{base64.b64encode(hashlib.sha512(tarball).digest()).decode()}"
    version: dict[str, Any] = {"name": NPM_NAME, "version": NPM_VERSION}
    version["dist"] = {"tarball": f"{url}/sdk.tgz", "integrity": integrity}
    manifest = {"name": NPM_NAME, "dist-tags": {"latest": NPM_VERSION}, "versions": {NPM_VERSION: version}}
    return json.dumps(manifest).encode()
