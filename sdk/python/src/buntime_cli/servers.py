"""The servers that `buntime login` keeps, and which one a command talks to.

The file has API keys, so only its owner may read it. It is `$XDG_CONFIG_HOME/buntime/servers.json`.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from buntime_cli.server_url import DEFAULT_URL

if TYPE_CHECKING:
    import typer

URL, KEY = "BUNTIME_URL", "BUNTIME_API_KEY"
NO_KEY = (
    "There is no API key. Set BUNTIME_API_KEY, or use: buntime login. On the server, create a key with: buntime keys "
    "create"
)


class ServersUnreadable(Exception):
    """The file is not one that `buntime login` wrote, or names no such server. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Access:
    """The server's URL and a key, which is "" if there is none."""

    url: str
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Servers:
    """The kept servers by name. `default`: the one for commands that name none."""

    by_name: Mapping[str, Access]
    default: str | None = None

    def with_server(self, name: str, access: Access) -> "Servers":
        """The newest server is the default."""
        return Servers({**self.by_name, name: access}, name)

    def without(self, name: str) -> "Servers":
        left = {other: access for other, access in self.by_name.items() if other != name}
        return Servers(left, next(iter(left), None) if self.default == name else self.default)


def server_of(context: "typer.Context") -> str | None:
    """The server that `buntime --server NAME COMMAND` names."""
    name = context.find_root().params.get("server")
    return name if isinstance(name, str) else None


def access_to(name: str | None, environ: Mapping[str, str] = os.environ) -> Access:
    """The environment's variables win. A kept key is only sent to the URL that it was kept for.

    `name`: the server that the command names. Raises ServersUnreadable.
    """
    url, key = environ.get(URL, "").rstrip("/"), environ.get(KEY, "")
    if name is not None:
        return _named(name, [variable for variable in (URL, KEY) if environ.get(variable)], environ)
    if key:
        return Access(url or DEFAULT_URL, key)
    servers = kept_servers(environ)
    if url:
        keys = (access.key for access in servers.by_name.values() if access.url == url)
        return Access(url, next(keys, ""))
    return servers.by_name[servers.default] if servers.default is not None else Access(DEFAULT_URL)


def _named(name: str, in_environment: list[str], environ: Mapping[str, str]) -> Access:
    if in_environment:  # the wrong server could lose its sessions
        raise ServersUnreadable(f"{in_environment[0]} is set and wins over --server {name}. Unset one of them.")
    servers = kept_servers(environ)
    if name not in servers.by_name:
        raise ServersUnreadable(f"There is no server {name}. Add it with: buntime login {name} --url URL")
    return servers.by_name[name]


def servers_file(environ: Mapping[str, str] = os.environ) -> Path:
    home = environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".config") / "buntime" / "servers.json"


def kept_servers(environ: Mapping[str, str] = os.environ) -> Servers:
    """Raises ServersUnreadable."""
    file = servers_file(environ)
    try:
        told = json.loads(file.read_bytes())
        by_name = {str(name): Access(str(one["url"]), str(one["key"])) for name, one in told["servers"].items()}
        default = told.get("default")
        return Servers(by_name, default if default in by_name else None)
    except FileNotFoundError:
        return Servers({})
    except OSError as failure:
        raise ServersUnreadable(f"{file} cannot be read: {failure.strerror}.") from failure
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ServersUnreadable(f"{file} is damaged. Delete it and log in again.") from None


def keep_servers(servers: Servers) -> Path:
    """Replaces the file at once, readable by its owner only. Raises OSError."""
    file = servers_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    by_name = {name: {"url": access.url, "key": access.key} for name, access in servers.by_name.items()}
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        draft.unlink()
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as written:
        json.dump({"default": servers.default, "servers": by_name}, written, indent=2)
    draft.replace(file)
    return file
