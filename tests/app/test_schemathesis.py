"""Tests the server over a real socket with valid and invalid requests generated from its description."""

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
from buntime.testing.volumes import FakeVolume
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
# rules that the schema cannot express: a plan's limits, "exactly one of", and names that no shell accepts
EXCLUDED: list[CheckFunction] = [positive_data_acceptance]


load_all_checks()
schema = schemathesis.openapi.from_dict(with_known_session(document(OPERATIONS, openapi_pages()), KNOWN), config=CONFIG)


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """Serves the API in a thread, since schemathesis calls it without an event loop."""
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
    api.sandboxes.volumes.setdefault("volknown", FakeVolume(limits.disk))
    known = Session(KNOWN, "acc_busy000000000000", 0, 1 << 40, 0, limits, "sbknown", "volknown", "fake")
    api.store.sessions[KNOWN] = known  # undoes what the previous request did
    api.clock.now += 60  # keeps checks without a key below the rate limit of their address
    case.call_and_validate(
        base_url=api.url, headers={"Authorization": f"Bearer {api.key}"}, excluded_checks=EXCLUDED, timeout=10
    )
