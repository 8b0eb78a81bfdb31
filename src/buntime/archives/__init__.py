"""Implementations of `ports.Archive`, each in its own file."""

import re

NAME = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)*")
PREFIX = re.compile(r"([a-z0-9_-]+/)*")


def checked(pattern: re.Pattern[str], name: str) -> str:
    """The name, if it has the form of names that we make. Raises ValueError."""
    if not pattern.fullmatch(name):
        raise ValueError(f"{name!r} is no name of the archive")
    return name
