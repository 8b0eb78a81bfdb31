"""A request, as the fake received it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """`headers`: names in lower case, without the key. `body`: the value of a JSON body, else bytes; None without a
    body.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a JSON body."""
        return self.body if isinstance(self.body, dict) else {}


def request_of(method: str, url: str, headers: Mapping[str, str], content: bytes) -> FakeRequest:
    parts = urlsplit(url)
    shown = {name.lower(): value for name, value in headers.items() if "btk_" not in value}
    body: Any = content or None
    if shown.get("content-type") == "application/json":
        body = json.loads(content)
    return FakeRequest(method, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), shown, body)
