"""`ports.Archive`, an implementation a file."""

import re

NAME = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
PREFIX = re.compile(r"([a-z0-9_-]+/)*")


def checked(pattern: re.Pattern[str], name: str) -> str:
    """Names are ours; no other leads anywhere. Raises ValueError."""
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} is no name of the archive")
    return name
