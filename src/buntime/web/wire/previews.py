"""The JSON shapes of preview tokens."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import Time
from buntime.web.wire.shapes import Request, Response


class CreatePreviewToken(Request):
    port: (
        Annotated[int, Meta(description="A port from 1024 to 65535. Omit it for every port of the session.")]
        | UnsetType
    ) = UNSET
    ttl: (
        Annotated[
            int,
            Meta(
                description="Seconds, at least 60; 3600 by default. The token expires with the session at the latest."
            ),
        ]
        | UnsetType
    ) = UNSET


class PreviewTokenMade(Response):
    url: Annotated[
        str, Meta(description="Opens the preview in a browser. The browser then keeps the token as a cookie.")
    ]
    token: Annotated[str, Meta(description="For the `X-Preview-Token` header. Shown only once.")]
    expires_at: Time


class RevokePreviewToken(Request):
    token: (
        Annotated[str, Meta(description="The token to revoke. Omit it to revoke all tokens of the session.")]
        | UnsetType
    ) = UNSET


class PreviewTokensRevoked(Response):
    revoked: Annotated[int, Meta(ge=0, description="The number of tokens removed, recently expired ones included.")]
