"""Opens files in many processes. fs.file-max counts them for the whole host, RLIMIT_NOFILE for one process."""

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
while told := os.read(receive, 1 << 16):
    kept += len(told)
    held.tell(kept)
