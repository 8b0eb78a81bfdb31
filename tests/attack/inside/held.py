"""Reports how much an attack holds, in a file of fixed size that can be written even if the disk is full."""

import os
import time
from typing import NoReturn

FILE, SIZE = "/run/held", 64


class Held:
    def __init__(self) -> None:
        self._file = os.open(FILE, os.O_CREAT | os.O_RDWR)
        self.report(0)

    def report(self, count: float, note: str = "") -> None:
        """Reports the held amount. `note` says what stopped the attack from taking more."""
        os.pwrite(self._file, f"{int(count)} {note}".ljust(SIZE).encode()[:SIZE], 0)

    def keep(self, count: float, note: str = "full") -> NoReturn:
        """Keeps everything until the process is killed."""
        self.report(count, note)
        while True:
            time.sleep(3600)
