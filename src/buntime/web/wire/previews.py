"""The JSON shapes of preview tokens."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import Time
from buntime.web.wire.shapes import Request, Response


class CreatePreviewToken(Request):
    port: Annotated[int, Meta(description="1024 to 65535. Without it, every port of the session.")] | UnsetType = UNSET
    ttl: (
        Annotated[int, Meta(description="Seconds, at least 60; 3600 without it. It ends with the session.")] | UnsetType
    ) = UNSET


class PreviewTokenMade(Response):
    url: Annotated[str, Meta(description="Opens the preview in a browser, which keeps the token as a cookie.")]
    token: Annotated[str, Meta(description="For the header `X-Preview-Token`. Shown this once.")]
    expires_at: Time


class RevokePreviewToken(Request):
    token: Annotated[str, Meta(description="Without it, all of the session's.")] | UnsetType = UNSET


class PreviewTokensRevoked(Response):
    revoked: Annotated[int, Meta(ge=0, description="How many were valid or had expired lately.")]
