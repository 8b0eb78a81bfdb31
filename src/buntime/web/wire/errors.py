"""The JSON shape of every error."""

from typing import Annotated, Any

from msgspec import Meta

from buntime.web.wire.shapes import Response


class Failure(Response):
    code: str
    retryable: Annotated[bool, Meta(description="Whether the same request can succeed later.")]
    message: str
    details: dict[str, Any]


class FailureAnswer(Response):
    error: Failure
