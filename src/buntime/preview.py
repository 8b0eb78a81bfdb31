"""Host name ↔ session and port. Pure."""

from buntime.config import Config

DEFAULT_PORT = 8080


def preview_url(session_id: str, config: Config) -> str:
    """Where port 8080 of the session is seen: `http://ses-….localhost:8000` until a domain is configured."""
    label = session_id.replace("_", "-")
    if config.domain:
        return f"https://{label}.{config.domain}"
    return f"http://{label}.localhost:{config.port}"


def api_url(config: Config) -> str:
    """Where the API is on this machine."""
    host = "localhost" if config.host in ("127.0.0.1", "0.0.0.0", "::") else config.host
    return f"http://{host}:{config.port}"
