"""Two hosts' plain nginx: what a hop over mutual TLS costs when nginx does nothing else."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from bench.plain_nginx import running
from bench.previews import PORT, Way
from buntime.fleet.peer_keys import issue
from tests.fleet.lab.hosts import Host

HTTP, TLS = 9080, 9443
NAME = "hst_plain"  # in the certificate
NEAR = Template("""\
  upstream session { server $session:$port; keepalive 64; keepalive_requests 100000; }
  server {
    listen $address:$http;
    location / { proxy_pass http://session; }
  }
  server {
    listen $address:$tls ssl;
    ssl_certificate $certificate;
    ssl_certificate_key $certificate;
    ssl_client_certificate $authority;
    ssl_verify_client on;
    ssl_protocols TLSv1.3;
    location / { proxy_pass http://session; }
  }
""")
FAR = Template("""\
  upstream near { server $near:$tls; keepalive 64; keepalive_requests 100000; }
  server {
    listen $address:$http;
    location / {
      proxy_pass https://near;
      proxy_ssl_certificate $certificate;
      proxy_ssl_certificate_key $certificate;
      proxy_ssl_trusted_certificate $authority;
      proxy_ssl_verify on;
      proxy_ssl_name $name;
      proxy_ssl_protocols TLSv1.3;
    }
  }
""")


@contextmanager
def plain_hops(directory: Path, owner: Host, other: Host, session: str) -> Iterator[tuple[Way, Way]]:
    """Yields a way through an nginx on the session's host, and one through two: the other host's, and that one.

    `session`: its address on its host. Raises RuntimeError.
    """
    authority, certificate = _keys(directory)
    shared = {"http": HTTP, "tls": TLS, "name": NAME, "authority": authority, "certificate": certificate}
    near = NEAR.substitute(shared, address=owner.address, session=session, port=PORT)
    far = FAR.substitute(shared, address=other.address, near=owner.address)
    host = f"{session}:{PORT}"
    with (
        running(directory / "plain-near", near, owner.address, HTTP, owner.enter),
        running(directory / "plain-far", far, other.address, HTTP, other.enter),
    ):
        yield Way("one plain nginx", owner.address, HTTP, host), Way("two plain nginx", other.address, HTTP, host)


def _keys(directory: Path) -> tuple[Path, Path]:
    """The files of an authority, and of a certificate with its key, as hosts have them."""
    keys = issue(secrets.token_bytes(32), NAME, time.time())
    authority, certificate = directory / "plain-authority.pem", directory / "plain.pem"
    authority.write_bytes(keys.authority)
    certificate.touch(0o600)
    certificate.write_bytes(keys.certificate + keys.key)
    return authority, certificate
