"""The documents are short sentences in short lines, and their links lead somewhere."""

from pathlib import Path

import pytest

from tests import documents
from tests.documents import ROOT, anchors, count, guides, links

WIDEST = 120  # characters of a line
MEAN = 16.0  # words a sentence
LONG = 0.05  # the share of sentences over 30 words
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "images").glob("*.md"),
    *(ROOT / "sdk").glob("*/README.md"),
]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links(page):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        assert led.exists(), f"{named(page)} links to {target}"
        if anchor and led.suffix == ".md":
            assert anchor in anchors(led), f"{named(page)} links to {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if named(page) not in documents.GENERATED], ids=named)
def test_no_line_is_wider_than_a_reader_s_window(page: Path) -> None:
    assert [line for line in page.read_text().split("\n") if len(line) > WIDEST] == []


def test_sentences_of_the_guides_are_short() -> None:
    counted = count(guides())
    assert counted.mean <= MEAN
    assert counted.long <= LONG


def test_words_are_counted_without_code_and_links(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n\nTake [this one](there.md) now. Then call `a b c`.\n\n```\nnot counted\n```\n")
    counted = count([page])
    assert counted.words == 2 + 4 + 3
    assert counted.sentences == (4,)
