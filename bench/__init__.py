"""Benchmarks a server with the shipped settings as a client sees it, compared with what the machine itself can do."""
