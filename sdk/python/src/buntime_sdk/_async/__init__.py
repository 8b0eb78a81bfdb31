"""The source of both halves: see `generate`."""
