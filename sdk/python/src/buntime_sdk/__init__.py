"""Client of buntime: isolated Bun sessions for AI agents.

    from buntime_sdk import Buntime

    with Buntime().sessions.create(ttl=3600) as session:
        print(session.execute("console.log(6 * 7)").stdout)

`AsyncBuntime` is the same for asyncio.
"""

from buntime_sdk._async.client import AsyncBuntime
from buntime_sdk._async.contexts import AsyncContext, AsyncContexts
from buntime_sdk._async.files import AsyncFiles, AsyncFileWatch
from buntime_sdk._async.images import AsyncImages
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk._async.processes import AsyncProcess, AsyncProcesses
from buntime_sdk._async.runs import AsyncRunStream
from buntime_sdk._async.session import AsyncSession
from buntime_sdk._async.sessions import AsyncSessions
from buntime_sdk._async.snapshots import AsyncSnapshots
from buntime_sdk._async.terminal import AsyncTerminal
from buntime_sdk._sync.client import Buntime
from buntime_sdk._sync.contexts import Context, Contexts
from buntime_sdk._sync.files import Files, FileWatch
from buntime_sdk._sync.images import Images
from buntime_sdk._sync.pages import Pages
from buntime_sdk._sync.processes import Process, Processes
from buntime_sdk._sync.runs import RunStream
from buntime_sdk._sync.session import Session
from buntime_sdk._sync.sessions import Sessions
from buntime_sdk._sync.snapshots import Snapshots
from buntime_sdk._sync.terminal import Terminal
from buntime_sdk.errors import (
    BuntimeError,
    ConnectionFailed,
    ContextLost,
    ContextNotFound,
    DiskFull,
    ExecutionFailed,
    ExecutionTimeout,
    FileConflict,
    FileNotFound,
    Forbidden,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    ImageNotFound,
    InternalError,
    InvalidRequest,
    InvalidState,
    MemoryLimitExceeded,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    ProcessNotFound,
    RangeNotSatisfiable,
    RateLimitExceeded,
    RequestTimeout,
    ResourceLimitExceeded,
    SessionBusy,
    SessionLimitExceeded,
    SessionNotFound,
    SnapshotNotFound,
    TerminalNotFound,
    Unauthorized,
    Unavailable,
)
from buntime_sdk.seen import UNCHANGED
from buntime_sdk.settings import NetworkSettingsDict, PreviewSettingsDict, ResourceLimitsDict
from buntime_sdk.shapes import (
    ContextEntry,
    Displayed,
    Evaluation,
    ExecutionResult,
    File,
    FileChange,
    FileEntry,
    FileEvent,
    FileOverflow,
    FileStatus,
    FileWritten,
    Forms,
    Image,
    LogEntry,
    LogEvent,
    LogPage,
    LogsDropped,
    NetworkSettings,
    PreviewSettings,
    PreviewToken,
    ProcessExit,
    ProcessStarted,
    RateLimit,
    ResourceLimits,
    Result,
    RunEvent,
    SearchMatch,
    SearchResult,
    SessionState,
    Snapshot,
    Stderr,
    Stdout,
    Table,
    TerminalEnd,
    Thrown,
    Watching,
    Woken,
)
from buntime_sdk.version import __version__

__all__ = [
    "UNCHANGED",
    "AsyncBuntime",
    "AsyncContext",
    "AsyncContexts",
    "AsyncFileWatch",
    "AsyncFiles",
    "AsyncImages",
    "AsyncPages",
    "AsyncProcess",
    "AsyncProcesses",
    "AsyncRunStream",
    "AsyncSession",
    "AsyncSessions",
    "AsyncSnapshots",
    "AsyncTerminal",
    "Buntime",
    "BuntimeError",
    "ConnectionFailed",
    "Context",
    "ContextEntry",
    "ContextLost",
    "ContextNotFound",
    "Contexts",
    "DiskFull",
    "Displayed",
    "Evaluation",
    "ExecutionFailed",
    "ExecutionResult",
    "ExecutionTimeout",
    "File",
    "FileChange",
    "FileConflict",
    "FileEntry",
    "FileEvent",
    "FileNotFound",
    "FileOverflow",
    "FileStatus",
    "FileWatch",
    "FileWritten",
    "Files",
    "Forbidden",
    "Forms",
    "IdempotencyInProgress",
    "IdempotencyKeyReused",
    "Image",
    "ImageNotFound",
    "Images",
    "InternalError",
    "InvalidRequest",
    "InvalidState",
    "LogEntry",
    "LogEvent",
    "LogPage",
    "LogsDropped",
    "MemoryLimitExceeded",
    "MethodNotAllowed",
    "NetworkSettings",
    "NetworkSettingsDict",
    "NotFound",
    "Pages",
    "PayloadTooLarge",
    "PreviewSettings",
    "PreviewSettingsDict",
    "PreviewToken",
    "Process",
    "ProcessExit",
    "ProcessNotFound",
    "ProcessStarted",
    "Processes",
    "RangeNotSatisfiable",
    "RateLimit",
    "RateLimitExceeded",
    "RequestTimeout",
    "ResourceLimitExceeded",
    "ResourceLimits",
    "ResourceLimitsDict",
    "Result",
    "RunEvent",
    "RunStream",
    "SearchMatch",
    "SearchResult",
    "Session",
    "SessionBusy",
    "SessionLimitExceeded",
    "SessionNotFound",
    "SessionState",
    "Sessions",
    "Snapshot",
    "SnapshotNotFound",
    "Snapshots",
    "Stderr",
    "Stdout",
    "Table",
    "Terminal",
    "TerminalEnd",
    "TerminalNotFound",
    "Thrown",
    "Unauthorized",
    "Unavailable",
    "Watching",
    "Woken",
    "__version__",
]
