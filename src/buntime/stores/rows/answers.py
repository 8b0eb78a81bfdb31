"""Answers to idempotent requests. Large bodies are compressed."""

import asyncio
import json
import zlib
from dataclasses import dataclass

from buntime.ports import Answer
from buntime.stores.rows.row import Row

PACKED_FROM = 1 << 10  # bytes; smaller bodies are not worth compressing
FAST_LEVEL = 1  # of zlib, because the JSON bodies live only for a day
INLINE_BODY = 64 << 10  # bytes; a thread compresses larger bodies, so that the loop does not block


@dataclass(frozen=True, slots=True)
class PackedAnswer:
    """An answer as the store has it, with a compressed body if that saves space."""

    account: str
    key: str
    fingerprint: str
    status: int
    created_at: int
    headers: str  # a JSON object
    packed: bool
    body: bytes


def pack(answer: Answer) -> PackedAnswer:
    """Takes about 10 ms for each MB of the body."""
    packed = len(answer.body) > PACKED_FROM
    body = zlib.compress(answer.body, FAST_LEVEL) if packed else answer.body
    headers = json.dumps(answer.headers, default=dict)
    return PackedAnswer(
        answer.account, answer.key, answer.fingerprint, answer.status, answer.created_at, headers, packed, body
    )


async def pack_aside(answer: Answer) -> PackedAnswer:
    """The same, without holding up the loop."""
    if len(answer.body) <= INLINE_BODY:
        return pack(answer)
    return await asyncio.to_thread(pack, answer)


def unpack(stored: PackedAnswer) -> Answer:
    body = zlib.decompress(stored.body) if stored.packed else stored.body
    headers = json.loads(stored.headers)
    return Answer(stored.account, stored.key, stored.fingerprint, stored.status, body, stored.created_at, headers)


async def unpack_aside(stored: PackedAnswer) -> Answer:
    """The same, without holding up the loop."""
    if len(stored.body) <= INLINE_BODY:
        return unpack(stored)
    return await asyncio.to_thread(unpack, stored)


def answer_of(row: Row) -> PackedAnswer:
    return PackedAnswer(
        account=row["account"],
        key=row["key"],
        fingerprint=row["fingerprint"],
        status=row["status"],
        created_at=row["created_at"],
        headers=row["headers"],
        packed=bool(row["packed"]),
        body=bytes(row["body"]),
    )
