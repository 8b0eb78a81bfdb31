# Made by `generate` from ../_async/__init__.py: change that.
"""The source of both halves: see `generate`."""
