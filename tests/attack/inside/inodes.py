"""Makes metadata instead of content: small files with extended attributes, hard links and deep directories.

The volume's quota counts metadata, too.
"""

import os
from contextlib import suppress
from pathlib import Path

from held import Held

held, made, place = Held(), 0, "/root/many"
while True:
    place += f"/{made}" if len(place) < 3000 else ""
    try:
        Path(place).mkdir(parents=True, exist_ok=True)
        for number in range(500):
            path = f"{place}/{made}-{number}"
            with open(path, "wb") as file:
                file.write(b"x" * 1000)
            os.setxattr(path, "user.large", b"x" * 2000)
            os.link(path, f"{path}-again")
            made += 1
        held.report(made)
    except OSError as refused:
        held.report(made, str(refused.strerror))
        with suppress(OSError):
            os.truncate(f"{place}/{made}-0", 0)  # keeps writing to a full disk
