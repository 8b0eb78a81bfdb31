"""Host name ↔ session and port. Pure."""

from buntime.config import Config

DEFAULT_PORT = 8080


def preview_url(session_id: str, config: Config) -> str:
    """Where port 8080 of the session is seen: `http://ses-….localhost:8000` until a domain is configured."""
    label = session_id.replace("_", "-")
    if config.domain:
        return f"https://{label}.{config.domain}"
    return f"http://{label}.localhost:{config.port}"
