"""Implementations of `ports.Archive`, one in each file."""

import re

NAME = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
PREFIX = re.compile(r"([a-z0-9_-]+/)*")


def checked(pattern: re.Pattern[str], name: str) -> str:
    """Returns the name. Raises ValueError if it is not one of buntime's own object names."""
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} is not a name in the archive")
    return name
