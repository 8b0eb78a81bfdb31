"""The files of the viewer that makes `/docs` out of the OpenAPI document. `scripts/viewer` fetches them."""

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from buntime.web.assets import Asset, asset

FOLDER = Path(__file__).parent / "viewer"
PLACE = "/docs"


@dataclass(frozen=True, slots=True)
class Viewer:
    style: Asset
    script: Asset
    start: Asset  # the script that starts it


@cache
def viewer() -> Viewer | None:
    """None if its files were never fetched: `/docs` is a plain page then."""
    return load(FOLDER)


def assets() -> tuple[Asset, ...]:
    found = viewer()
    return (found.style, found.script, found.start) if found else ()


def load(folder: Path) -> Viewer | None:
    try:
        packed = (folder / "scalar.js.gz").read_bytes()
    except FileNotFoundError:
        return None
    style, start = (folder / name for name in ("docs.css", "start.js"))
    return Viewer(
        asset(PLACE, "docs.css", b"text/css", style.read_bytes()),
        asset(PLACE, "scalar.js", b"text/javascript", gzip.decompress(packed), packed),
        asset(PLACE, "start.js", b"text/javascript", start.read_bytes()),
    )
