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
    code: Annotated[str, Meta(description="TypeScript or JavaScript for Bun; exactly one of code and command.")] | (
        UnsetType
    ) = UNSET
    command: Annotated[str, Meta(description="Run by `bash -c`; exactly one of code and command.")] | UnsetType = UNSET
    files: (
        Annotated[
            list[FileRequest],
            Meta(
                description="Written before the run, all or none; 100 (free) or 1,000 (paid) at most.",
                extra_json_schema={"default": []},
            ),
        ]
        | UnsetType
    ) = UNSET
    env: (
        Annotated[
            dict[str, str],
            Meta(description="For this run only; at most 100 entries.", extra_json_schema={"default": {}}),
        ]
        | UnsetType
    ) = UNSET
    timeout: (
        Annotated[int, Meta(description="Seconds; 1 up to the plan's most. Without it, the session's `timeout`.")]
        | UnsetType
    ) = UNSET
    working_dir: Path = "/workspace"
    stream: Annotated[bool, Meta(description="The answer as Server-Sent Events.")] = False
    detach: Annotated[bool, Meta(description="With `stream`: a process, which goes on when the client leaves.")] = False
    stdin: Annotated[str, Meta(description="What the program reads from its standard input.")] = ""
    context_id: (
        Annotated[str, Meta(description="Run `code` in this context; without `env`, `workingDir` and `stdin`.")]
        | UnsetType
    ) = UNSET


class Output(Response):
    data: Annotated[str, Meta(description="No character is split; bytes that are not UTF-8 are U+FFFD.")]


class Ended(Response):
    exit_code: Annotated[int, Meta(description="128 + signal when killed, 124 on timeout.")]
    execution_time: Annotated[int, Meta(description="Milliseconds by the clock.")]
    memory_used: Annotated[int, Meta(description="Peak bytes of the run.")]
    cpu_time: Annotated[int, Meta(description="Milliseconds of CPU.")]
    timed_out: bool
    files_written: Annotated[
        list[str], Meta(description="Relative to `/workspace`; `node_modules` and `.git` left out; at most 1,000.")
    ]
    truncated: Annotated[bool, Meta(description="Only where output was cut.")] | UnsetType = UNSET
    files_written_truncated: Annotated[bool, Meta(description="Only where the list was cut.")] | UnsetType = UNSET
    process_limit_exceeded: (
        Annotated[
            bool,
            Meta(
                description="Only where the run met the limit of 448 processes and threads, or the session its own of "
                "512. Everything that the run started has been killed."
            ),
        ]
        | UnsetType
    ) = UNSET


class Executed(Ended, kw_only=True):
    stdout: Annotated[str, Meta(description="At most 10 MiB; bytes that are not UTF-8 are U+FFFD.")]
    stderr: Annotated[str, Meta(description="At most 10 MiB; bytes that are not UTF-8 are U+FFFD.")]
