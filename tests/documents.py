"""Counts words and sentences of the documents, and finds their links.

    .venv/bin/python -m tests.documents            README.md and the guides
    .venv/bin/python -m tests.documents PAGE…      these pages

Code blocks are left out. A row of a table is as many sentences as it has cells. A sentence of fewer than four words,
such as a heading, counts as words only.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = {"docs/python-reference.md", "docs/typescript-reference.md"}  # from docstrings
FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ITEM = re.compile(r"^([-*]|\d+\.)\s+")
RULE = re.compile(r"^\|?[\s:|-]+\|?$")
CODE = re.compile(r"`[^`]*`")
END = re.compile(r"(?<=[.!?:])[\"”)]?\s+(?=[A-Z`\"“(\[*0-9])")
WORD = re.compile(r"[\w`'’·/_{}<>$-]+")
LONG = 30  # words; a sentence with more is hard to read
SHORT = 4  # words; fewer are a heading or a cell


@dataclass(frozen=True)
class Counted:
    words: int
    sentences: tuple[int, ...]  # words of each that has at least SHORT

    @property
    def mean(self) -> float:
        return sum(self.sentences) / max(1, len(self.sentences))

    @property
    def long(self) -> float:
        """The share of sentences over LONG words."""
        return sum(words > LONG for words in self.sentences) / max(1, len(self.sentences))


def guides() -> list[Path]:
    """README.md and what users read in docs, without references that are generated."""
    pages = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs/integrations").glob("*.md")),
    ]
    return [page for page in pages if str(page.relative_to(ROOT)) not in GENERATED]


def count(pages: Iterable[Path]) -> Counted:
    lengths = [words for page in pages for block in _blocks(page.read_text()) for words in _lengths(block)]
    return Counted(sum(lengths), tuple(words for words in lengths if words >= SHORT))


def links(page: Path) -> list[str]:
    """The targets of a page's links, without those in code."""
    return LINK.findall(CODE.sub("", FENCED.sub("", page.read_text())))


def anchors(page: Path) -> set[str]:
    """The names that links can give a page's headings, as GitHub makes them."""
    headings = HEADING.findall(FENCED.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items, headings and cells, each as one line."""
    for block in re.split(r"\n\s*\n", FENCED.sub("\n\n", text)):
        paragraph: list[str] = []
        for line in map(str.strip, block.split("\n")):
            if line.startswith(("#", "|")) or ITEM.match(line) or RULE.match(line):
                yield " ".join(paragraph)
                paragraph = []
            if RULE.match(line):
                continue
            if line.startswith("|"):
                yield from (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
            elif line.startswith("#"):
                yield line.lstrip("# ")
            else:
                paragraph.append(ITEM.sub("", line))
        yield " ".join(paragraph)


def _lengths(block: str) -> Iterator[int]:
    """The number of words of each sentence. Code in backticks is one word."""
    block = CODE.sub("`code`", re.sub(r"\]\([^)]*\)", "]", block))
    yield from filter(None, (len(WORD.findall(sentence)) for sentence in END.split(block)))


def main() -> None:
    pages = [Path(name) for name in sys.argv[1:]] or guides()
    for name, counted in [*((str(page), count([page])) for page in pages), ("together", count(pages))]:
        name = name.removeprefix(f"{ROOT}/")
        print(f"{counted.words:6,} words, mean {counted.mean:4.1f}, over {LONG}: {counted.long:5.1%}  {name}")


if __name__ == "__main__":
    main()
