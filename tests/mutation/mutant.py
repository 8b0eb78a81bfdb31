"""A mutant: one small change of the source, named so that it can be found again after files move and lines shift."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutant:
    file: str  # from the root of the checkout it was sampled in
    scope: str  # qualified name of the enclosing function or class; empty at the top of a module
    line: str  # the source line on which the change begins, without its indentation
    kind: str  # "compare", "call", …
    old: str
    new: str
    nth: int = 0  # among the changes that agree in all of the above

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:10]

    def __str__(self) -> str:
        old, new = (" ".join(text.split())[:60] for text in (self.old, self.new))
        return f"{self.id}  {self.file}  {self.scope or 'module'}: {self.line[:70]}  [{self.kind}: {old} → {new}]"


@dataclass(frozen=True, slots=True)
class Edit:
    """A mutant at its place in one tree. Positions are bytes; lines count from 1."""

    mutant: Mutant
    start: int
    end: int
    lines: tuple[int, int]  # first and last line of what is executed with it
    names: tuple[str, ...] = ()  # set by the statement, where it runs at import only

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.mutant.new.encode() + source[self.end :]


def counted(edits: Iterable[Edit]) -> list[Edit]:
    """The edits of one file in order, with `nth` set."""
    seen = Counter[Mutant]()
    numbered = list[Edit]()
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.mutant.kind, edit.mutant.new)):
        numbered.append(replace(edit, mutant=replace(edit.mutant, nth=seen[edit.mutant])))
        seen[edit.mutant] += 1
    return numbered


def save_sample(path: Path, mutants: Sequence[Mutant]) -> None:
    path.write_text(json.dumps([asdict(mutant) for mutant in mutants], indent=1, ensure_ascii=False) + "\n")


def load_sample(path: Path) -> list[Mutant]:
    return [Mutant(**fields) for fields in json.loads(path.read_text())]
