"""Calls the API over raw sockets that are read as fast as possible, so that no client's own work is measured."""

import time
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from bench.exchanges import connect, head
from bench.previews import MB, Way
from bench.server import Server

TAIL = 4096  # bytes at the end; the last event is in them


def way_of(server: Server) -> Way:
    port = server.config.port
    key = f"Authorization: Bearer {server.key}\r\n"
    return Way("the API", "127.0.0.1", port, f"127.0.0.1:{port}", key)


def stream_of(api: Way, run: Mapping[str, object], mark: bytes, stalled: float = 0.0) -> tuple[float, int]:
    """Returns the seconds until the last event of a streamed execute, and how often the byte `mark` came.

    `stalled`: seconds without reading after the first byte. Raises RuntimeError if the run failed.
    """
    body = msgspec.json.encode({**run, "stream": True})
    way = replace(api, fields=f"{api.fields}Content-Type: application/json\r\n")
    buffer, tail, marks = bytearray(MB), b"", 0
    with connect(api) as connection:
        start = time.perf_counter()
        connection.sendall(head("POST", "/execute", way, len(body)) + body)
        while read := connection.recv_into(buffer):
            if stalled:
                time.sleep(stalled)
                stalled = 0.0
            marks += buffer.count(mark, 0, read)
            tail = (tail + buffer[max(0, read - TAIL) : read])[-TAIL:]
        spent = time.perf_counter() - start
    if b"event: result" not in tail or b'"exitCode":0' not in tail:
        raise RuntimeError(f"{api.name}: the stream ended with {tail[-500:]!r}")
    return spent, marks
