"""The JSON shapes of a run."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import Encoding, Mode, Path, SessionId
from buntime.web.wire.shapes import Request, Response


class FileRequest(Request):
    path: Path
    content: str
    encoding: Encoding = "utf8"
    mode: Mode | UnsetType = UNSET


class Execute(Request):
    session_id: SessionId
    code: Annotated[
        str, Meta(description="TypeScript or JavaScript for Bun. Give exactly one of `code` and `command`.")
    ] | (UnsetType) = UNSET
    command: (
        Annotated[str, Meta(description="A command for `bash -c`. Give exactly one of `code` and `command`.")]
        | UnsetType
    ) = UNSET
    files: (
        Annotated[
            list[FileRequest],
            Meta(
                description="Files to write before the run, all or none. At most 100 (free) or 1,000 (paid).",
                extra_json_schema={"default": []},
            ),
        ]
        | UnsetType
    ) = UNSET
    env: (
        Annotated[
            dict[str, str],
            Meta(
                description="Environment variables for this run only, at most 100.", extra_json_schema={"default": {}}
            ),
        ]
        | UnsetType
    ) = UNSET
    timeout: (
        Annotated[int, Meta(description="Seconds, from 1 to the plan's limit. Defaults to the session's `timeout`.")]
        | UnsetType
    ) = UNSET
    working_dir: Path = "/workspace"
    stream: Annotated[bool, Meta(description="Send the response as Server-Sent Events.")] = False
    detach: Annotated[
        bool, Meta(description="With `stream`: run a process that continues after the client disconnects.")
    ] = False
    stdin: Annotated[str, Meta(description="The program's standard input.")] = ""
    context_id: (
        Annotated[str, Meta(description="Run `code` in this context. Not allowed with `env`, `workingDir` or `stdin`.")]
        | UnsetType
    ) = UNSET


class Output(Response):
    data: Annotated[str, Meta(description="Text. A character is never split. Bytes that are not UTF-8 become U+FFFD.")]


class Ended(Response):
    exit_code: Annotated[int, Meta(description="128 + signal number if killed, 124 on timeout.")]
    execution_time: Annotated[int, Meta(description="Wall-clock milliseconds.")]
    memory_used: Annotated[int, Meta(description="Peak memory of the run in bytes.")]
    cpu_time: Annotated[int, Meta(description="CPU milliseconds.")]
    timed_out: bool
    files_written: Annotated[
        list[str], Meta(description="Paths relative to `/workspace`, without `node_modules` and `.git`; at most 1,000.")
    ]
    truncated: Annotated[bool, Meta(description="Present only if output was cut.")] | UnsetType = UNSET
    files_written_truncated: (
        Annotated[bool, Meta(description="Present only if `filesWritten` was cut.")] | UnsetType
    ) = UNSET
    process_limit_exceeded: (
        Annotated[
            bool,
            Meta(
                description="Present only if the run reached its limit of 448 processes and threads, or the session "
                "its limit of 512. Everything that the run started was killed."
            ),
        ]
        | UnsetType
    ) = UNSET


class Executed(Ended, kw_only=True):
    stdout: Annotated[str, Meta(description="At most 10 MiB. Bytes that are not UTF-8 become U+FFFD.")]
    stderr: Annotated[str, Meta(description="At most 10 MiB. Bytes that are not UTF-8 become U+FFFD.")]
