"""Gives memory that large requests used back to the host.

The C library keeps freed blocks of up to 32 MB. So a few bodies of 10 MB would leave the server hundreds of MB larger
for ever.
"""

import asyncio
import ctypes
import resource
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 5.0
GROWN = 64 << 20  # bytes of growth that are worth the few milliseconds of a trim


async def keep_trimmed() -> None:
    """For ever."""
    c_library, smallest = ctypes.CDLL(None), _resident()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        with suppress(OSError):  # there may be no open file left just now
            if _resident() > smallest + GROWN:
                await asyncio.to_thread(c_library.malloc_trim, 0)
                smallest = _resident()


def _resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
