"""Runs Python programs one after another, each in a fork of this process: forking_python.py <PATHS

Each path that it reads is that of a program. It writes the program's exit code. What the program says is in a file
beside it. The SDK is imported once, which takes longer than most programs.
"""

import os
import runpy
import sys
from pathlib import Path

import buntime_sdk

SAID = ".said"  # added to a program's name


def run(program: Path) -> None:
    with program.with_name(program.name + SAID).open("wb") as said:
        for output in (1, 2):
            os.dup2(said.fileno(), output)
    runpy.run_path(str(program), run_name="__main__")


def main() -> None:
    assert buntime_sdk.__file__
    while path := sys.stdin.readline().rstrip("\n"):
        child = os.fork()
        if child == 0:
            run(Path(path))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
