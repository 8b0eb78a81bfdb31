"""Controls the server's archive from outside: lists its objects and makes it unreachable."""

import os
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from buntime.archives.opening import open_archive


class ArchiveControl(Protocol):
    settings: Mapping[str, str]  # for the server

    def take_away(self) -> None:
        """Makes the archive unreachable until `bring_back`."""
        ...

    def bring_back(self) -> None: ...

    def objects(self, sessions: Iterable[str]) -> set[str]:
        """Returns the names of these sessions' objects. A directory also lists objects of no session."""
        ...

    def close(self) -> None: ...


def archive_control(location: str, default: Path) -> ArchiveControl:
    """Takes `location` in the form of BUNTIME_ARCHIVE. If it is empty, uses the directory `default`."""
    return Bucket(location) if location.startswith("s3://") else Directory(Path(location or default))


class Directory:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._aside = root.with_name(root.name + ".away")
        self.settings: Mapping[str, str] = {"BUNTIME_ARCHIVE": str(root)}

    def take_away(self) -> None:
        self._root.rename(self._aside)
        self._root.write_text("a file where the archive was")

    def bring_back(self) -> None:
        self._root.unlink()
        self._aside.rename(self._root)

    def objects(self, sessions: Iterable[str]) -> set[str]:
        return {str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file()}

    def close(self) -> None: ...


class Bucket:
    """An S3 bucket at AWS_ENDPOINT_URL. The server reaches it through a forwarder, which can close connections."""

    def __init__(self, location: str) -> None:
        endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
        assert endpoint.scheme == "http", "AWS_ENDPOINT_URL must begin with http:// to torture an S3 archive"
        self._archive = open_archive(location, Path(), os.environ)
        self._forwarder = Forwarder(endpoint.hostname or "", endpoint.port or 80)
        self.settings: Mapping[str, str] = {
            "BUNTIME_ARCHIVE": location,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._forwarder.port}",
        }

    def take_away(self) -> None:
        self._forwarder.open = False

    def bring_back(self) -> None:
        self._forwarder.open = True

    def objects(self, sessions: Iterable[str]) -> set[str]:
        return {name for session in sessions for name in self._archive.names(f"{session}/")}

    def close(self) -> None:
        self._forwarder.close()


class Forwarder:
    """Forwards connections from `port` to the address while `open` is true."""

    def __init__(self, host: str, port: int) -> None:
        self.open = True
        self._to = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                here, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(here,), daemon=True).start()

    def _serve(self, here: socket.socket) -> None:
        with here, suppress(OSError):
            if self.open:
                with socket.create_connection(self._to) as there:
                    back = threading.Thread(target=self._pass_on, args=(there, here), daemon=True)
                    back.start()
                    self._pass_on(here, there)
                    back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while self.open and (piece := source.recv(1 << 16)):
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
