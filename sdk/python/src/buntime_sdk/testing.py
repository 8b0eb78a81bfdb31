"""Clients without a server, for testing programs that use buntime.

Sessions, files, processes, contexts and terminals are in memory. Nothing runs: you script what programs print. Calls
work as with a server, including retries and errors; only the network is left out.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

from buntime_sdk import AsyncBuntime, Buntime
from buntime_sdk._fake.answers import scripted
from buntime_sdk._fake.previews import PreviewAnswer, PreviewScript
from buntime_sdk._fake.request import FakeRequest
from buntime_sdk._fake.scripts import FakeResult, FakeRun, RunAnswer, RunKind, RunMatch, RunScript
from buntime_sdk._fake.server import FakeServer, Trouble, path_pattern, require_operation
from buntime_sdk._fake.transports import AsyncFakeTransport, Dialing, FakeTransport, async_pause, pause
from buntime_sdk.errors import BuntimeError

__all__ = [
    "AsyncFakeBuntime",
    "FakeBuntime",
    "FakeRequest",
    "FakeResult",
    "FakeRun",
    "PreviewAnswer",
    "PreviewScript",
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
        """The requests so far, oldest first. Each attempt is one request."""
        return tuple(self._server.requests)

    def on_execute(self, match: RunMatch, answer: RunScript) -> Self:
        """Scripts the result of matching runs.

        `match`: the exact code or command, a compiled pattern to search in it, or a function of the `FakeRun`. The
        newest matching script wins. `answer`: a `FakeResult`, an `ExecutionResult` or `Evaluation`, a str to use as
        stdout, a BuntimeError, or a function of the `FakeRun` that returns one of these.

        A run without a script raises InvalidRequest. A process without one runs silently until it gets a signal.
        """
        self._server.scripts.add(match, answer)
        return self

    def on_start(self, match: RunMatch, answer: RunScript) -> Self:
        """Scripts what matching processes print. They end after that, unless the `FakeResult` is `running`.

        `match`, `answer`: as for `on_execute`.
        """
        self._server.scripts.add(match, answer, frozenset({"process"}))
        return self

    def on_fetch(self, port: int, answer: PreviewScript) -> Self:
        """Scripts what a server on this port answers, in every session.

        `port`: as for `Session.fetch`. `answer`: an `httpx2.Response`, a str to use as its text, a BuntimeError for a
        refusal or a connection that breaks, or a function of the `FakeRequest` that returns one of these. On a port
        without a script nothing listens.
        """
        self._server.servers.add(port, answer)
        return self

    def fail(
        self, method: str, path: str, error: BuntimeError | str, *, times: int = 1, after_work: bool = False
    ) -> Self:
        """Makes the next calls of the API fail.

        `method`, `path`: such as `"POST", "/execute"` or `"GET", "/sessions/{id}"`. `error`: the error to raise, or its
        code. ConnectionFailed means that the connection breaks, or with `begun=False` that there never was one.
        `times`: how many calls fail. `after_work`: do the work and lose only the response.

        Raises ValueError for a code that the server does not have, or an operation that it does not have.
        """
        require_operation(method, path)
        self._server.troubles.append(Trouble(method, path_pattern(path), scripted(error), times, after_work))
        return self

    def add_image(self, name: str, *, size_bytes: int = 0) -> Self:
        """Adds an image that sessions can stand on, as an operator does. `name`, `size_bytes`: as `Image` has them."""
        self._server.images.add(name, size_bytes)
        return self

    def add_event(self, type: str, session_id: str | None = None, **data: object) -> Self:  # noqa: A002
        """Adds an event, as a server does when it happens. The fake itself adds those of creates and deletions of
        sessions, of ends of processes, of keys and of webhooks. `type`, `session_id`, `data`: as `Event` has them.
        """
        self._server.events.add(type, session_id, **data)
        return self

    def limit_sessions(self, most: int) -> Self:
        """Makes creates and forks beyond `most` sessions at a time fail with SessionLimitExceeded, as a plan does."""
        self._server.most_sessions = most
        return self

    def input_of(self, session_id: str, process_id: str) -> bytes:
        """Returns what was written to the process with the id `process_id` of the session `session_id`.

        Raises SessionNotFound, ProcessNotFound.
        """
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
        """`clock`: returns the time, with its zone; sessions expire by it. Retries do not wait."""
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
        """Like `FakeBuntime`."""
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
