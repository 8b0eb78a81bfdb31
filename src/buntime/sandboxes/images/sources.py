"""Where an image comes from: a directory, an archive of a root file system, or what skopeo can fetch.

oci:DIR[:TAG]   oci-archive:FILE   docker-archive:FILE   docker://HOST/NAME:TAG
a directory, or a tarball, with a root file system
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from buntime.sandboxes.images.copying import copy_tree
from buntime.sandboxes.images.refused import Budget, ImageRefused
from buntime.sandboxes.images.unpacking import members, name_of, unpack

FETCHED = ("oci:", "oci-archive:", "docker-archive:", "docker://")
LOOPBACK = re.compile(r"docker://(localhost|127\.[0-9.]+|\[::1\])(:\d+)?/")
TOOLS = ("skopeo", "umoci")
TAG = "image"  # in the layout that skopeo makes for us
LARGEST_JSON = 16 << 20  # bytes
ENV_BYTES = 65536
SHOWN_OUTPUT = 2000  # characters of a failed tool's output
ARCHIVES_OF_IMAGES = {"oci-layout": "oci-archive", "manifest.json": "docker-archive"}  # file in it → its source

type Say = Callable[[str], None]
type Env = Mapping[str, str]  # of an image's programs


def take(source: str, work: Path, budget: Budget, say: Say) -> Env:
    """Makes `work`/root from the source. Returns the environment that the image sets. Raises ImageRefused."""
    root = work / "root"
    root.mkdir(mode=0o755)
    if source.startswith(FETCHED):
        return _fetch(source, work, root, budget, say)
    path = Path(source)
    try:
        if path.is_dir():
            copy_tree(path, root, budget)
        elif path.is_file():
            unpack(path, root, budget)
    except RecursionError as failed:
        raise ImageRefused(f"{source} has directories that are nested too deeply.") from failed
    if not path.exists():
        raise ImageRefused(f"There is no directory or archive {source}. From a registry: docker://HOST/NAME:TAG.")
    _require_no_layout(source, root)
    return {}


def _require_no_layout(source: str, root: Path) -> None:
    for file, kind in ARCHIVES_OF_IMAGES.items():
        if (root / file).is_file() and not any((root / usual).exists() for usual in ("bin", "usr", "etc")):
            hint = f"oci:{source}" if Path(source).is_dir() else f"{kind}:{source}"
            raise ImageRefused(f"{source} has no root file system, but an image in layers. Add it as {hint}.")


def _fetch(source: str, work: Path, root: Path, budget: Budget, say: Say) -> Env:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise ImageRefused(
            f"{source} needs {' and '.join(missing)}. Install: "
            f"apt-get install --no-install-recommends {' '.join(TOOLS)}. A directory or tarball with a root file "
            "system needs neither."
        )
    layout = work / "layout"
    plain = ["--src-tls-verify=false"] if LOOPBACK.match(source) else []
    say(f"Fetching {source}.")
    _run(["skopeo", "--insecure-policy", "copy", "--quiet", *plain, source, f"oci:{layout}:{TAG}"], "Fetching")
    manifest = _manifest(layout)
    env = _env(_blob(layout, manifest["config"]["digest"]))
    say("Unpacking its layers.")
    _check_layers(layout, manifest, budget)
    if any(str(layer.get("mediaType")).endswith("zstd") for layer in manifest["layers"]):
        layout = _recompressed(layout)
    root.rmdir()
    _run(["umoci", "raw", "unpack", "--image", f"{layout}:{TAG}", str(root)], "Unpacking")
    return env


def _recompressed(layout: Path) -> Path:
    """The same image with layers that umoci knows: skopeo compresses by gzip what is not compressed."""
    plain, again = layout.with_name("plain"), layout.with_name("again")
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet"]
    _run([*copy, "--dest-decompress", f"oci:{layout}:{TAG}", f"dir:{plain}"], "Decompressing")
    _run([*copy, f"dir:{plain}", f"oci:{again}:{TAG}"], "Compressing")
    return again


def _check_layers(layout: Path, manifest: Mapping[str, Any], budget: Budget) -> None:
    """Before anything is unpacked: no entry may leave the root, and all of them must fit."""
    for layer in manifest["layers"]:
        with members(_path(layout, layer["digest"])) as (_, entries):
            for member in entries:
                name_of(member)
                budget.entry(member.size if member.isreg() else 0)


def _manifest(layout: Path) -> Mapping[str, Any]:
    try:
        (described,) = json.loads((layout / "index.json").read_text())["manifests"]
    except (OSError, ValueError, KeyError) as failed:
        raise ImageRefused(f"skopeo made no image of it: {failed}") from failed
    return _blob(layout, described["digest"])


def _blob(layout: Path, digest: str) -> Mapping[str, Any]:
    """A JSON object of the layout, which skopeo has checked against its digest."""
    path = _path(layout, digest)
    if path.stat().st_size > LARGEST_JSON:
        raise ImageRefused("The image's description is too large.")
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise ImageRefused("The image's description is not an object.")
    return found


def _path(layout: Path, digest: str) -> Path:
    if not re.fullmatch(r"[a-z0-9]+:[a-f0-9]{32,128}", digest):
        raise ImageRefused(f"{digest!r} is not a digest.")
    return layout / "blobs" / digest.replace(":", "/")


def _env(config: Mapping[str, Any]) -> Env:
    words = (config.get("config") or {}).get("Env") or []
    pairs = (word.partition("=") for word in words if isinstance(word, str) and "\0" not in word)
    env = {name: value for name, _, value in pairs if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)}
    if sum(len(name) + len(value) for name, value in env.items()) > ENV_BYTES:
        raise ImageRefused(f"The image sets more than {ENV_BYTES:,} bytes of environment variables.")
    return env


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as failed:
        raise ImageRefused(f"{what} failed: {failed}") from failed
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-SHOWN_OUTPUT:]
        raise ImageRefused(f"{what} failed ({command[0]}, exit {done.returncode}):\n{said}")
