"""What the kernel has counted of one TCP connection of this host."""

import os
import socket
import struct

_INFO = struct.Struct("=120xQQII")  # `struct tcp_info`: bytes acknowledged and received, segments sent and received
_HEADERS = 14 + 20 + 32  # bytes of a packet: Ethernet, IPv4, TCP with time stamps


def packet_bytes(descriptor: int) -> int:
    """Bytes that the connection's packets had in both directions, as the interface counts them. Large packets that the
    kernel has not yet split count a little less there. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=os.dup(descriptor)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    if len(info) < _INFO.size:
        raise OSError("the kernel does not count the segments of connections")
    acknowledged, received, sent, arrived = _INFO.unpack(info)
    return int(acknowledged + received + _HEADERS * (sent + arrived))
