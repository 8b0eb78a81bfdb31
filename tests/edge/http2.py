"""Makes HTTP/2 frames as bytes, including frames that no library would send."""

import struct

HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 1, 3, 4, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
CANCEL = struct.pack("!I", 8)


def field(name: str, value: str) -> bytes:
    """Returns a literal header field without compression."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    length = len(text)
    if length < 127:
        return bytes([length]) + text.encode()
    rest, more = length - 127, b""
    while rest >= 128:
        rest, more = rest >> 7, more + bytes([rest & 127 | 128])
    return b"\x7f" + more + bytes([rest]) + text.encode()


def get(host: str, path: str = "/") -> bytes:
    """Returns the header block of a GET request."""
    pseudo = {":method": "GET", ":scheme": "https", ":path": path, ":authority": host}
    return b"".join(field(name, value) for name, value in pseudo.items())
