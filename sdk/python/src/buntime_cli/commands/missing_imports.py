"""Finds the local file that a program could not import, because `buntime run` uploads only what you name."""

import re
from pathlib import Path, PurePosixPath

MODULE = re.compile(r"Cannot find module ['\"](\.\.?/[^'\"\n]+)['\"] from ['\"]/workspace/([^'\"\n]+)['\"]")
PYTHON = re.compile(r"ModuleNotFoundError: No module named '([A-Za-z0-9_]+)")
SUFFIXES = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".mts", ".json")


def missing_import(folder: Path, errors: str) -> PurePosixPath | None:
    """The path below `folder` of a file or folder that exists here and that the program did not find.

    `errors`: what the program wrote to stderr.
    """
    return next((path for path in _asked(errors) if _is_below(folder, path)), None)


def _asked(errors: str) -> list[PurePosixPath]:
    asked = [PurePosixPath(source).parent / name for name, source in MODULE.findall(errors)]
    found = [path.with_name(path.name + suffix) for path in asked for suffix in SUFFIXES if path.name]
    modules = PYTHON.findall(errors)
    return [*found, *(PurePosixPath(name + suffix) for name in modules for suffix in ("", ".py"))]


def _is_below(folder: Path, path: PurePosixPath) -> bool:
    local = folder / path
    return local.exists() and local.resolve().is_relative_to(folder) and ".." not in path.parts
