"""The server's own address, as its clients see it."""

import re

from buntime.config import Config
from buntime.preview import api_url
from buntime.web.exchange import Exchange

HOST = re.compile(r"(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")


def url_of(exchange: Exchange, config: Config) -> str:
    """The server's URL: its domain if it has one, else the host that the client wrote.

    A proxy in front of the server may speak HTTPS for it.
    """
    host = b"".join(exchange.header(b"host")).decode("latin-1").lower()
    if config.domain or not HOST.fullmatch(host):
        return api_url(config)
    https = bool(config.tls_cert) or exchange.header(b"x-forwarded-proto") == [b"https"]
    return f"{'https' if https else 'http'}://{host}"
