"""A server that pages suspended sessions out soon: paging_server.py SECONDS

It is `buntime serve`, but a session is paged out so many seconds after its suspension.
"""

import os
import sys

from buntime import main
from buntime.config import from_environment
from buntime.sandboxes.kernel import reclaim


def run(seconds: float) -> None:
    reclaim.AFTER = seconds
    main.serve(from_environment(os.environ))


if __name__ == "__main__":
    run(float(sys.argv[1]))
