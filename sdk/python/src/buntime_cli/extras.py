"""What to do if an extra of the distribution is not installed."""

from buntime_cli.server_url import server_url


def how_to_install(extra: str) -> str:
    """Returns a sentence. It names no package to look up in an index: the server hands out the right one."""
    return f"This command needs the extra `{extra}`: {server_url().rstrip('/')}/clients/ says how to install it."
