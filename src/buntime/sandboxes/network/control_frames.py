"""WebSocket ping and pong frames that clients send into sessions, told from data by nftables. Pure.

Browsers answer a server's pings by themselves, and client libraries ping by themselves. Neither means that anybody uses
the session. nftables looks at one segment at a time and knows no connection's history, so a segment is ignored only
when all of it is one masked ping or pong frame. Any other segment is data: two frames in one segment, a frame in
two segments, an unmasked frame, which no WebSocket client sends, and another protocol's bytes.
"""

PING, PONG = 0x89, 0x8A  # first byte of a frame: it is the last of its message, and its kind
MASKED = 0x80  # in the second byte, beside the payload's length
LONGEST_PAYLOAD = 125  # bytes that a control frame can carry
FRAME_HEADER = 6  # bytes: the two above and the mask
IP_HEADER = 20  # bytes; with options it is longer, and the segment counts as data
TCP_HEADER_WORDS = range(5, 16)  # its length in words of 4 bytes: without options to the longest

KEY = "@ih,8,8 . ip length . tcp doff"
CONTROL_FRAME = f"@ih,0,8 {{ {PING:#x}, {PONG:#x} }} ip hdrlength 5 {KEY} @control_frames"


def control_frames() -> str:
    """The set that CONTROL_FRAME looks into: each length that one frame alone gives a packet."""
    elements = ", ".join(
        f"{MASKED | payload:#x} . {IP_HEADER + 4 * words + FRAME_HEADER + payload} . {words}"
        for payload in range(LONGEST_PAYLOAD + 1)
        for words in TCP_HEADER_WORDS
    )
    return f"set control_frames {{ typeof {KEY}; elements = {{ {elements} }}; }}"
