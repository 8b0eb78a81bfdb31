"""Writes files, 50 in a directory: fill.py DIRECTORY FILES BYTES random|text.

Runs in a session. Random bytes do not compress, and text compresses to almost nothing.
"""

import os
import sys
from pathlib import Path

IN_ONE_DIRECTORY = 50


def main(directory: str, files: str, size: str, kind: str) -> None:
    count, length = int(files), int(size)
    for number in range(count):
        home = Path(directory) / f"d{number // IN_ONE_DIRECTORY}"
        if number % IN_ONE_DIRECTORY == 0:
            home.mkdir(parents=True, exist_ok=True)
        line = f"file {number} of {count}\n".encode()
        content = os.urandom(length) if kind == "random" else (line * (length // len(line) + 1))[:length]
        (home / f"f{number}.js").write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
