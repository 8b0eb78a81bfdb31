"""Opens pseudo-terminals. kernel.pty.max limits the host; the mount option `max` limits the session's devpts."""

import os

from held import Held

held, kept = Held(), 0
try:
    while True:
        os.openpty()
        kept += 1
        held.report(kept)
except OSError as refused:
    held.keep(kept, str(refused.strerror))
