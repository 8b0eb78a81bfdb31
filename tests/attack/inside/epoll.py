"""Watches files with epoll. fs.epoll.max_user_watches is per host user, and each session has its own host users."""

import os
import resource
import select

from held import Held

most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held, kept, polls = Held(), 0, []
ends = [end for _ in range(500) for end in os.pipe()]
try:
    while True:
        poll = select.epoll()
        polls.append(poll)
        for end in ends:
            poll.register(end)
            kept += 1
        held.report(kept)
except OSError as refused:
    held.keep(kept, str(refused.strerror))
