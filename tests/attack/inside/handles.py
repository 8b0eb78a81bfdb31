"""Opens files in many processes. fs.file-max limits the host, RLIMIT_NOFILE each process."""

import os
import resource
import time

from held import Held

held = Held()
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
receive, send = os.pipe()
for _ in range(20):
    if os.fork() == 0:
        try:
            while True:
                for _ in range(100):
                    os.open("/dev/null", os.O_RDONLY)
                os.write(send, b"x" * 100)
        except OSError:
            time.sleep(3600)
kept = 0
while ticks := os.read(receive, 1 << 16):
    kept += len(ticks)
    held.report(kept)
