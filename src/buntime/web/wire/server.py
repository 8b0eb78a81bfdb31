"""The JSON shapes of `/`, health and readiness."""

from typing import Annotated, Literal

from msgspec import Meta

from buntime.web.wire.shapes import Response


class Health(Response):
    status: Literal["ok"]


class Readiness(Response):
    ready: bool
    checks: dict[str, bool]


class Front(Response):
    name: Literal["buntime"]
    version: str
    docs: Annotated[str, Meta(description="The path of the API reference.")]
    openapi: Annotated[str, Meta(description="The path of this description.")]
    health: str
    clients: Annotated[str, Meta(description="The path of the SDKs and the command line that match this server.")]
