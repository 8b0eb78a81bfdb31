"""Reports of a guest about a run in a context are checked, because the guest may be an impostor."""

import asyncio
import struct
from collections.abc import Sequence

import msgspec
import pytest

from buntime.ports import SandboxGone
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.inside.evaluations import LARGEST_VALUE, Evaluated, read_evaluation
from tests.unit.scripted_guest import answering, whole

END = b'{"outcome": "ended", "exitCode": null}'
GONE = b'{"outcome": "ended", "exitCode": 137}'
TOLD = b'{"value": {"text": "1", "json": 1}, "failure": null, "interrupted": false}'
SECONDS = 10.0

type Frame = tuple[bytes, bytes]


async def _read(frames: Sequence[Frame]) -> Evaluated:
    body = b"".join(struct.pack(">cI", kind, len(payload)) + payload for kind, payload in frames)

    async with (
        asyncio.timeout(SECONDS),
        answering(whole(body)) as guest,
        guest.request("POST", "/contexts/run", {"id": "x"}) as told,
    ):
        return await read_evaluation(told, None, None)


def plain(forms: object) -> object:
    """Returns the value as a client gets it."""
    return msgspec.json.decode(msgspec.json.encode(forms))


async def test_tables_and_names_of_cut_forms_are_passed_on() -> None:
    forms = {"text": "", "table": {"columns": ["a"], "rows": [[1], [{"b": None}]]}, "cut": ["html"]}
    run = await _read([(b"v", msgspec.json.encode({"value": forms})), (b"x", END)])
    assert run.told is not None
    assert run.told.value is not None
    assert plain(run.told.value.plain()) == forms


async def test_a_run_arrives_as_output_displayed_values_result_and_end() -> None:
    run = await _read([(b"o", b"out"), (b"d", b'{"text": "2"}'), (b"e", b"err"), (b"v", TOLD), (b"x", END)])
    assert (run.stdout, run.stderr, run.displayed) == (b"out", b"err", [{"text": "2"}])
    assert run.told is not None
    assert run.told.value is not None
    assert plain(run.told.value.plain()) == {"text": "1", "json": 1}
    assert run.end.exit_code is None


async def test_a_kernel_that_ends_sends_no_result() -> None:
    run = await _read([(b"o", b"out"), (b"x", GONE)])
    assert (run.told, run.end.exit_code, run.stdout) == (None, 137, b"out")


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [(b"v", TOLD)],
        [(b"x", END)],
        [(b"v", TOLD), (b"x", GONE)],
        [(b"v", b"{"), (b"x", END)],
        [(b"v", b"[" * 100_000), (b"x", END)],
        [(b"v", b'{"value": {"text": 5}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "script": ""}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "table": {"columns": 1, "rows": []}}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "table": {"columns": ["a"], "rows": {}}}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "table": {"columns": [1], "rows": []}}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "json": "\xff"}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "json": [1, 2}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "cut": [' + b'"",' * 20 + b'""]}}'), (b"x", END)],
        [(b"v", b'{"value": {"text": "", "cut": 1}}'), (b"x", END)],
        [(b"d", b'"text"'), (b"v", TOLD), (b"x", END)],
        [(b"d", b"{" + b" " * LARGEST_VALUE + b"}"), (b"v", TOLD), (b"x", END)],
        [(b"o", b""), (b"v", TOLD), (b"x", END)],
        [(b"q", b"{}"), (b"v", TOLD), (b"x", END)],
        [(b"x", b'{"outcome": "else"}')],
        [(b"x", b'{"outcome": "ended", "exitCode": 1000}')],
        [(b"v", TOLD), (b"x", b'{"outcome": "ended", "filesWritten": [5]}')],
    ],
)
async def test_anything_else_comes_from_an_impostor(frames: Sequence[Frame]) -> None:
    with pytest.raises((Impostor, SandboxGone)):
        await _read(frames)
