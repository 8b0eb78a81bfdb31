"""The server that the commands talk to."""

import os

DEFAULT_URL = "http://localhost:8000"


def server_url() -> str:
    return os.environ.get("BUNTIME_URL") or DEFAULT_URL
