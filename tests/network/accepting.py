"""A server that accepts every connection and closes it when its client does."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def accepting(address: tuple[str, int], **options: Any) -> Iterator[int]:
    """Runs the server. Yields its port."""
    ended = threading.Event()
    with socket.create_server(address, backlog=4096, **options) as listener:
        listener.setblocking(False)
        thread = threading.Thread(target=_serve, args=(listener, ended))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ended.set()
            thread.join()


def _serve(listener: socket.socket, ended: threading.Event) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while not ended.is_set():
            for key, _ in selector.select(0.1):
                if key.fileobj is listener:
                    accepted, _ = listener.accept()
                    selector.register(accepted, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and _has_ended(key.fileobj):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
        for key in list(selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()


def _has_ended(stream: socket.socket) -> bool:
    try:
        return not stream.recv(65536)
    except ConnectionError:
        return True
