"""Options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
WorkingDir = Annotated[str, typer.Option("--workdir", "-w", help="Relative to /workspace, or absolute.")]
Variables = list[str] | None
RunEnv = Annotated[Variables, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For this run.")]
RunTimeout = Annotated[
    str | None, typer.Option(help="Kill the run after this time: 90, 5m. Default: the session's timeout.")
]
NoStdin = Annotated[bool, typer.Option("--no-stdin", "-n", help="Do not read piped input.")]
SessionEnv = Annotated[
    Variables, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For everything that runs in the session.")
]
