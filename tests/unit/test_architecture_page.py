"""Files that ARCHITECTURE.md names exist, and it names every room."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
SOURCE = ROOT / "src" / "buntime"
PLACES = [*SOURCE.rglob("*"), *(ROOT / "guest").glob("[ns]*/**/*"), *ROOT.glob("*/*")]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/.-]+\.(?:py|ts|c|lua|nft))`", PAGE))))
def test_every_file_that_the_page_names_exists(name: str) -> None:
    assert any(str(place).endswith(f"/{name}") for place in PLACES)


@pytest.mark.parametrize("entry", sorted(place.name for place in SOURCE.iterdir() if not place.name.startswith("_")))
def test_the_page_names_every_room(entry: str) -> None:
    room = f"{entry}/" if (SOURCE / entry).is_dir() else entry
    assert f"`{room}`" in PAGE or entry in ("py.typed", "plans.toml")
