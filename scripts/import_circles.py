"""Fails where TypeScript modules import each other in a circle: import_circles.py DIRECTORY…

Type imports count too: a reader follows them like any other.
"""

import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

RELATIVE = re.compile(r"""\b(?:from|import)\s*\(?\s*["'](\.[^"']*)["']""")
ENDINGS = ("", ".ts", ".tsx", ".js", "/index.ts")  # TypeScript also finds `x.ts` by the name `x.js`


def imports_of(module: Path) -> set[Path]:
    found = set()
    for name in RELATIVE.findall(module.read_text()):
        stem = f"{module.parent}/{name.removesuffix('.js')}"
        candidates = [Path(stem + ending) for ending in ENDINGS]
        there = {path.resolve() for path in candidates if path.is_file()}
        if not there:
            sys.exit(f"{module}: found no module {name}")
        found |= there
    return found


def circle_in(directory: Path) -> list[Path] | None:
    """The modules of one circle, with the first repeated at the end."""
    modules = [path.resolve() for path in directory.rglob("*") if path.suffix in (".ts", ".tsx", ".js")]
    graph = {module: imports_of(module) for module in modules if "node_modules" not in module.parts}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        circle: list[Path] = found.args[1]
        return circle[::-1]  # as the imports point
    return None


def main(directories: list[str]) -> int:
    failed = 0
    for directory in map(Path, directories):
        if circle := circle_in(directory):
            print("import circle:", " → ".join(str(path.relative_to(directory.resolve())) for path in circle))
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
