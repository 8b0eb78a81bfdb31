"""The version, which the server's log shows."""

__version__ = "0.1.0"
