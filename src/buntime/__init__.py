"""buntime: isolated Bun sessions for AI agents behind a small HTTP API."""

__version__ = "0.1.0"
