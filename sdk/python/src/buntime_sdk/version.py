"""The version, as the server's log shows it."""

__version__ = "0.1.0"
