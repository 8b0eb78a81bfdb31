"""The JSON shapes of health and readiness."""

from typing import Literal

from buntime.web.wire.shapes import Response


class Health(Response):
    status: Literal["ok"]


class Readiness(Response):
    ready: bool
    checks: dict[str, bool]
