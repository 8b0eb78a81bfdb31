"""An nginx with fixed upstreams and no permission checks, to compare previews with.

It has as many workers as the edge.
"""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection, create_server
from string import Template

from bench.previews import Preview, Way
from buntime.edge.nginx import CONNECTIONS, USER, WORKERS

ANSWER_SECONDS = 5.0
STOP_SECONDS = 10.0
CONFIGURATION = Template("""\
user $user;
daemon off;
pid $directory/nginx.pid;
error_log stderr error;
worker_processes $workers;
events { worker_connections $connections; }
http {
  access_log off;
  client_body_temp_path $directory/body;
  proxy_temp_path $directory/proxy;
  fastcgi_temp_path $directory/fastcgi;
  uwsgi_temp_path $directory/uwsgi;
  scgi_temp_path $directory/scgi;
  keepalive_requests 100000;
  client_max_body_size 0;
  map_hash_max_size 8192;
  map_hash_bucket_size 128;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_http_version 1.1;
  proxy_set_header Connection $$connection_to_session;
  proxy_set_header Upgrade $$http_upgrade;
  proxy_set_header Host $$http_host;
  map $$http_upgrade $$connection_to_session { "" ""; default upgrade; }
$servers
}
""")
SERVERS = Template("""\
  map $$http_host $$session { default session0; $hosts }
$upstreams
  server {
    listen 127.0.0.1:$port;
    location / { proxy_pass http://$$session; }
  }
""")

UPSTREAM = "  upstream session{place} {{ server {way.address}:{way.port}; keepalive 64; keepalive_requests 100000; }}"


@contextmanager
def plain_nginx(directory: Path, to: Way, *others: Preview) -> Iterator[Way]:
    """Yields a way through an nginx that leads to `to`; the hosts of other previews lead to those.

    Raises RuntimeError.
    """
    with create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    servers = SERVERS.substitute(
        port=port,
        hosts=" ".join(f"{other.edge.host} session{place};" for place, other in enumerate(others, 1)),
        upstreams="\n".join(
            UPSTREAM.format(place=place, way=way) for place, way in enumerate([to, *(other.direct for other in others)])
        ),
    )
    with running(directory, servers, "127.0.0.1", port):
        yield Way("nginx with a fixed upstream", "127.0.0.1", port, to.host)


@contextmanager
def running(directory: Path, servers: str, address: str, port: int, enter: Sequence[str] = ()) -> Iterator[None]:
    """Runs nginx as the edge's user, which may reach sessions. One of the servers listens at the address.

    `enter`: a command prefix. Raises RuntimeError.
    """
    directory.mkdir(exist_ok=True)
    file = directory / "nginx.conf"
    file.write_text(
        CONFIGURATION.substitute(
            user=USER, directory=directory, workers=WORKERS, connections=CONNECTIONS, servers=servers
        )
    )
    command = [
        *enter,
        "setpriv",
        "--pdeathsig",
        "TERM",
        "/usr/sbin/nginx",
        "-p",
        str(directory),
        "-e",
        "stderr",
        "-c",
        str(file),
    ]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        _wait(process, address, port)
        yield
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _wait(process: "subprocess.Popen[bytes]", address: str, port: int) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            create_connection((address, port), 1.0).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("the benchmark's own nginx does not respond")
