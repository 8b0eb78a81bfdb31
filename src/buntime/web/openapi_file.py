"""`python -m buntime.web.openapi_file` prints the OpenAPI document. `docs/openapi.json` is a copy of its output."""

import sys

import msgspec

from buntime.web.app import OPERATIONS, openapi_pages
from buntime.web.openapi import document


def main() -> None:
    encoded = msgspec.json.encode(document(OPERATIONS, openapi_pages()))
    sys.stdout.buffer.write(msgspec.json.format(encoded, indent=2) + b"\n")


if __name__ == "__main__":
    main()
