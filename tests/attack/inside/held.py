"""How an attack tells what it holds: a number in a file of a fixed size, which is written on a full disk too."""

import os
import time
from typing import NoReturn

FILE, SIZE = "/run/held", 64


class Held:
    def __init__(self) -> None:
        self._file = os.open(FILE, os.O_CREAT | os.O_RDWR)
        self.tell(0)

    def tell(self, count: float, note: str = "") -> None:
        """How much it has now; `note`: what ended the taking, when it has ended."""
        os.pwrite(self._file, f"{int(count)} {note}".ljust(SIZE).encode()[:SIZE], 0)

    def keep(self, count: float, note: str = "full") -> NoReturn:
        """Keeps all it has until it is killed."""
        self.tell(count, note)
        while True:
            time.sleep(3600)
