"""The description against the server: generated valid and invalid requests over a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CheckFunction, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from buntime.plan import Limits
from buntime.session import Session
from buntime.testing.sandboxes import FakeVolume
from buntime.web.app import OPERATIONS, openapi_pages
from buntime.web.openapi import document
from tests.app.serving import Api, serving
from tests.description import with_known_session

KNOWN = "ses_abc123def456ghi789"
CONFIG = SchemathesisConfig.from_dict(
    {
        "generation": {"max-examples": 25, "deterministic": True, "database": "none"},
        "checks": {"negative_data_rejection": {"expected-statuses": ["400", "401", "404", "405", "422"]}},
    }
)
# a plan's numbers, "exactly one of", and names that no shell takes: rules that the schema cannot tell
EXCLUDED: list[CheckFunction] = [positive_data_acceptance]


load_all_checks()
schema = schemathesis.openapi.from_dict(with_known_session(document(OPERATIONS, openapi_pages()), KNOWN), config=CONFIG)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """In a thread of its own: schemathesis calls it from outside any loop."""
    ready: Queue[tuple[Api, asyncio.AbstractEventLoop, asyncio.Event]] = Queue()

    async def serve() -> None:
        async with serving() as running:
            running.key = await running.account("paid", "busy", requests_per_minute=10**9, sessions=10**6)
            stop = asyncio.Event()
            ready.put((running, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="api")
    thread.start()
    running, loop, stop = ready.get(timeout=10)
    yield running
    loop.call_soon_threadsafe(stop.set)
    thread.join()


@schema.parametrize()
def test_the_server_does_what_its_description_says(case: schemathesis.Case[Any], api: Api) -> None:
    limits = Limits(1024, 0.25, 30, 1024)
    api.sandboxes.volumes.setdefault("sbknown", FakeVolume(limits))
    known = Session(KNOWN, "acc_busy000000000000", 0, 1 << 40, 0, limits, "sbknown", "fake")
    api.store.sessions[KNOWN] = known  # whatever the request before did to it
    api.clock.now += 60  # the checks without a key must not meet the limit of their address
    case.call_and_validate(
        base_url=api.url, headers={"Authorization": f"Bearer {api.key}"}, excluded_checks=EXCLUDED, timeout=10
    )
