"""hold.py SOURCE ADDRESS PORT FIRST_BYTES – keeps connections open.

Reads orders from stdin: `open N`, `close N` and `held`.
"""

import resource
import select
import socket
import sys

BATCH = 256  # connection attempts at a time, so that no queue of the host overflows
SECONDS = 5.0  # per connection

source, to, port, sent = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
family = socket.AF_INET6 if ":" in to else socket.AF_INET
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held: list[socket.socket] = []


def begin() -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(
        socket.IPPROTO_IP, 24, 1
    )  # IP_BIND_ADDRESS_NO_PORT: chooses the port at connect, so that ports suffice
    made.bind((source, 0))
    made.setblocking(False)
    made.connect_ex((to, port))
    return made


def connected(made: list[socket.socket]) -> list[socket.socket]:
    """Returns the accepted connections. Closes the others."""
    waiting, poll, good = {one.fileno(): one for one in made}, select.poll(), []
    for number in waiting:
        poll.register(number, select.POLLOUT)
    while waiting and (events := poll.poll(SECONDS * 1000)):
        for number, _ in events:
            poll.unregister(number)
            one = waiting.pop(number)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                one.send(sent)
                good.append(one)
            else:
                one.close()
    for one in waiting.values():
        one.close()
    return good


def alive(one: socket.socket) -> bool:
    try:
        return one.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def keep_open() -> None:
    global held
    living = [one for one in held if alive(one)]
    for one in set(held) - set(living):
        one.close()
    held = living


for line in sys.stdin:
    order, _, count = line.partition(" ")
    if order == "open":
        wanted, accepted = int(count), 0
        for first in range(0, wanted, BATCH):
            good = connected([begin() for _ in range(min(BATCH, wanted - first))])
            held += good
            accepted += len(good)
        print(accepted, wanted - accepted, flush=True)
        continue
    if order == "close":
        for _ in range(int(count)):
            held.pop().close()
    keep_open()
    print(len(held), flush=True)
