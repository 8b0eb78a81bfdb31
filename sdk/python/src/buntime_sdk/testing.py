"""For tests of programs that use buntime: clients that need no server.

Sessions, files, processes, contexts and terminals are in memory. What programs print is scripted: nothing is run. Calls
are made as they are to a server, with retries and errors; only the network is left out.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

from buntime_sdk import AsyncBuntime, Buntime
from buntime_sdk._fake.answers import scripted
from buntime_sdk._fake.request import FakeRequest
from buntime_sdk._fake.scripts import FakeResult, FakeRun, RunAnswer, RunKind, RunMatch, RunScript
from buntime_sdk._fake.server import FakeServer, Trouble, path_pattern
from buntime_sdk._fake.transports import AsyncFakeTransport, Dialing, FakeTransport, async_pause, pause
from buntime_sdk.errors import BuntimeError

__all__ = [
    "AsyncFakeBuntime",
    "FakeBuntime",
    "FakeRequest",
    "FakeResult",
    "FakeRun",
    "RunAnswer",
    "RunKind",
    "RunMatch",
    "RunScript",
]

KEY, URL = "btk_fake", "http://fake.invalid"


class _Scripted:
    _server: FakeServer

    @property
    def requests(self) -> Sequence[FakeRequest]:
        """What was asked, oldest first; each attempt is one."""
        return tuple(self._server.requests)

    def on_execute(self, match: RunMatch, answer: RunScript) -> Self:
        """What a run gives.

        `match`: the code or command itself, a compiled pattern that is found in it, or a function of the `FakeRun`. Of
        several that match the newest counts. `answer`: a `FakeResult`, an `ExecutionResult` or `Evaluation`, a str that
        is its stdout, a BuntimeError, or a function of the `FakeRun` that gives one of these.

        A run for which nothing is scripted raises InvalidRequest; a process goes on silently until it gets a signal.
        """
        self._server.scripts.add(match, answer)
        return self

    def on_start(self, match: RunMatch, answer: RunScript) -> Self:
        """The same for processes alone. They end after their output, unless the `FakeResult` says `running`."""
        self._server.scripts.add(match, answer, frozenset({"process"}))
        return self

    def fail(
        self, method: str, path: str, error: BuntimeError | str, *, times: int = 1, after_work: bool = False
    ) -> Self:
        """The next calls of this method and path fail, such as `"POST", "/execute"` or `"GET", "/sessions/{id}"`.

        `error`: what is raised, or its code. ConnectionFailed is a connection that breaks, or with `begun=False` one
        that was never there. `after_work`: the work is done, and only its answer lost.

        Raises ValueError for a code that the server does not have.
        """
        self._server.troubles.append(Trouble(method, path_pattern(path), scripted(error), times, after_work))
        return self

    def input_of(self, session_id: str, process_id: str) -> bytes:
        """What was written to a process. Raises SessionNotFound, ProcessNotFound."""
        return b"".join(self._server.session(session_id).process(process_id).written)


def _now() -> datetime:
    return datetime.now(UTC)


class FakeBuntime(_Scripted, Buntime):
    """A `Buntime` without a server."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = _now,
        max_retries: int = 2,
        on_retry: Callable[[BuntimeError, int, float], object] | None = None,
    ) -> None:
        """`clock`: gives the time, with its zone; sessions expire by it. Retries do not wait."""
        self._server = FakeServer(clock)
        super().__init__(
            KEY,
            URL,
            max_retries=max_retries,
            on_retry=on_retry,
            transport=FakeTransport(self._server),
            dial=Dialing(self._server).dial,
            pause=pause,
        )


class AsyncFakeBuntime(_Scripted, AsyncBuntime):
    """An `AsyncBuntime` without a server."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = _now,
        max_retries: int = 2,
        on_retry: Callable[[BuntimeError, int, float], object] | None = None,
    ) -> None:
        """As of `FakeBuntime`."""
        self._server = FakeServer(clock)
        super().__init__(
            KEY,
            URL,
            max_retries=max_retries,
            on_retry=on_retry,
            transport=AsyncFakeTransport(self._server),
            dial=Dialing(self._server).async_dial,
            pause=async_pause,
        )
