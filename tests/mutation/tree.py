"""All edits of a checkout, a sample of them, and a mutant of another checkout found again."""

import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from tests.mutation import python_code, typescript_code
from tests.mutation.mutant import Edit, Mutant

PYTHON, GUEST = ("src/buntime", "sdk/python/src/buntime_cli"), "guest/src"
ALIKE = 0.7  # of 1: how much of a line's words must be the same in a scope of the same name
VERY_ALIKE = 0.85  # … and in any other
FREE_KINDS = {"return", "call", "raise", "not"}  # what is replaced is a text with names in it, which may be renamed


@dataclass(frozen=True, slots=True)
class Tree:
    root: Path
    sources: dict[str, bytes]
    edits: list[Edit]


def read_tree(root: Path) -> Tree:
    python = [path for folder in PYTHON for path in sorted((root / folder).rglob("*.py"))]
    guest = [path for path in sorted((root / GUEST).rglob("*.ts")) if not path.name.endswith(".d.ts")]
    sources = {str(path.relative_to(root)): path.read_bytes() for path in (*python, *guest)}
    return Tree(root, sources, [edit for file, source in sources.items() for edit in _edits_of(file, source)])


def is_guest(mutant: Mutant) -> bool:
    return mutant.file.endswith(".ts")


def _edits_of(file: str, source: bytes) -> list[Edit]:
    if file.endswith(".py"):
        return python_code.edits_of(file, source)
    return typescript_code.edits_of(file, source)


# --- sampling ---


def sample(tree: Tree, python: int, guest: int, seed: int) -> list[Mutant]:
    """One mutant from each of so many stretches of code of equal length: long files have more, none is passed over."""
    chance = random.Random(seed)
    return [
        *_sampled(tree, PYTHON, python, chance, lambda edit: _is_worth_running(tree, edit)),
        *_sampled(tree, GUEST, guest, chance, lambda edit: not _same_script(tree, edit)),
    ]


def _sampled(
    tree: Tree, under: str | tuple[str, ...], count: int, chance: random.Random, good: Callable[[Edit], bool]
) -> list[Mutant]:
    begins, total = dict[str, int](), 0
    for file, source in tree.sources.items():
        if file.startswith(under):
            begins[file], total = total, total + source.count(b"\n")
    stretches: list[list[Edit]] = [[] for _ in range(count)]
    for edit in tree.edits:
        if edit.mutant.file in begins:
            at = begins[edit.mutant.file] + tree.sources[edit.mutant.file].count(b"\n", 0, edit.start)
            stretches[min(at * count // total, count - 1)].append(edit)
    chosen = (_chosen(stretch, chance, good) for stretch in stretches)
    return [edit.mutant for edit in chosen if edit is not None]


def _chosen(stretch: list[Edit], chance: random.Random, good: Callable[[Edit], bool]) -> Edit | None:
    """Each kind has the same chance, so that the frequent ones do not take all."""
    left = list(stretch)
    while left:
        kind = chance.choice(sorted({edit.mutant.kind for edit in left}))
        edit = chance.choice([edit for edit in left if edit.mutant.kind == kind])
        if good(edit):
            return edit
        left.remove(edit)
    return None


def _is_worth_running(tree: Tree, edit: Edit) -> bool:
    source = tree.sources[edit.mutant.file]
    mutated = edit.applied(source)
    try:
        if python_code.same_code(source, mutated):
            return False
    except SyntaxError:
        return False
    return not edit.names or _can_be_imported(tree.root, edit.mutant.file, mutated)


def _can_be_imported(root: Path, file: str, source: bytes) -> bool:
    module = file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    program = (
        "import sys, types\n"
        f"module = types.ModuleType({module!r})\n"
        f"module.__package__ = {module.rpartition('.')[0]!r}\n"
        f"module.__file__ = {str(root / file)!r}\n"
        f"sys.modules[{module!r}] = module\n"
        f"exec(compile(sys.stdin.buffer.read(), {file!r}, 'exec'), module.__dict__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=source, cwd=root, capture_output=True, check=False)
    return done.returncode == 0


def _same_script(tree: Tree, edit: Edit) -> bool:
    """Whether Bun sees no difference, as in a type, or cannot read it."""
    source = tree.sources[edit.mutant.file]
    one, other = (_transpiled(text) for text in (source, edit.applied(source)))
    return other is None or one == other


def _transpiled(source: bytes) -> bytes | None:
    with tempfile.NamedTemporaryFile(suffix=".ts") as file:
        file.write(source)
        file.flush()
        done = subprocess.run(
            [bun(), "build", "--no-bundle", "--minify-syntax", file.name], capture_output=True, check=False
        )
    return None if done.returncode else done.stdout


def images_dir() -> Path:
    """Where the server's images are, as scripts/test finds them."""
    data_dir = os.environ.get("BUNTIME_DATA_DIR", "/var/lib/buntime")
    return Path(os.environ.get("BUNTIME_IMAGES_DIR", f"{data_dir}/images"))


def bun() -> str:
    """Bun, out of any image of this host."""
    found = sorted(images_dir().glob("base-*/usr/local/bin/bun"))
    if not found:
        raise SystemExit("No image: run scripts/test once, which makes it.")
    return str(found[0])


# --- finding again ---


def find_again(tree: Tree, wanted: Sequence[Mutant]) -> dict[str, tuple[Edit, str]]:
    """Id of the mutant → where it is in this tree, and how sure that is. Ids that are missing were not found."""
    found = dict[str, tuple[Edit, str]]()
    for mutant in wanted:
        again = _found(tree.edits, mutant)
        if again is not None:
            found[mutant.id] = again
    return found


def _found(edits: Iterable[Edit], wanted: Mutant) -> tuple[Edit, str] | None:
    alike = [edit for edit in edits if _same_change(edit.mutant, wanted)]
    exact = [edit for edit in alike if _key(edit.mutant) == _key(wanted)]
    if exact:
        best = max(exact, key=lambda edit: _ratio(edit.mutant.file, wanted.file))
        return best, "same" if best.mutant.file == wanted.file else "moved"
    rated = [(likeness, edit) for edit in alike if (likeness := _likeness(edit.mutant, wanted)) > 0]
    if not rated:
        return None
    best_of_all = max(rated, key=lambda pair: (pair[0], pair[1].mutant.nth == wanted.nth))
    return best_of_all[1], f"alike {best_of_all[0]:.2f}"


def _key(mutant: Mutant) -> tuple[object, ...]:
    return (mutant.scope, mutant.line, mutant.old, mutant.new, mutant.nth)


def _same_change(one: Mutant, other: Mutant) -> bool:
    if one.kind != other.kind or is_guest(one) != is_guest(other):
        return False
    return one.kind in FREE_KINDS or (one.old, one.new) == (other.old, other.new)


def _likeness(here: Mutant, wanted: Mutant) -> float:
    """Of two mutants whose line, scope or both differ; 0 where they are taken for two."""
    line = _ratio(_words(here.line), _words(wanted.line))
    same_scope = here.scope.rpartition(".")[2] == wanted.scope.rpartition(".")[2]
    if line < (ALIKE if same_scope else VERY_ALIKE):
        return 0
    place = _ratio(here.file, wanted.file) + _ratio(here.scope, wanted.scope)
    return line + same_scope + place / 4


def _words(line: str) -> list[str]:
    """Without comments and what strings say: both are reworded freely."""
    uncommented = re.sub(r"\s+(?:#|//) .*", "", line)
    return re.findall(r"\w+|[^\w\s]+", re.sub(r"\"[^\"]*\"", '""', uncommented))


def _ratio(one: Sequence[str], other: Sequence[str]) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()
