"""The real watchdog with a fence that leaves a mark: python -m tests.deploy.watchdog DIRECTORY"""

import sys
from pathlib import Path
from typing import cast

from buntime.fleet.fence import Fence
from buntime.fleet.watchdog import watch


class Mark:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "fenced"

    def close(self) -> None:
        self._file.touch()


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    watch(directory / "lease", cast(Fence, Mark(directory)), directory / "group")
