"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
WorkingDir = Annotated[
    str, typer.Option("--workdir", "-w", metavar="PATH", help="Relative to /workspace, or absolute.")
]
Variables = list[str] | None
RunEnv = Annotated[Variables, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For this program.")]
RunTimeout = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Kill the program after this time: 90, 5m. Default: the session's timeout."),
]
NoStdin = Annotated[bool, typer.Option("--no-stdin", "-n", help="Do not read piped input.")]
NewName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="A name for the session: letters a-z, digits and '-', at most 63."),
]
SessionEnv = Annotated[
    Variables, typer.Option("--env", "-e", metavar="NAME=VALUE", help="For everything that runs in the session.")
]
Metadata = Annotated[Variables, typer.Option(metavar="NAME=VALUE", help="A label to search by.")]
Lifetime = Annotated[
    str | None, typer.Option(metavar="TIME", help="Lifetime: 90, 30m, 24h, 7d or never. Default: one day.")
]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Memory: 512 (MB), 512m, 2g.")]
Cpu = Annotated[float | None, typer.Option(metavar="CORES", help="CPU cores, such as 0.5 or 2.")]
SessionTimeout = Annotated[str | None, typer.Option(metavar="TIME", help="Timeout of runs that set none: 90, 5m.")]
Disk = Annotated[str | None, typer.Option(metavar="SIZE", help="Disk for files: 1024 (MB), 5g.")]
Ports = Annotated[
    list[int] | None,
    typer.Option("--port", metavar="PORT", help="A port that anyone may open. Repeatable. Default: 8080."),
]
Visibility = Annotated[
    bool | None, typer.Option("--private/--public", help="Require a token for previews, or open the ports.")
]
Egress = Annotated[Literal["internet", "none"] | None, typer.Option(help="What the session may reach.")]
Allow = Annotated[Variables, typer.Option(metavar="HOST", help="Allow only this name or network. Repeatable.")]
Deny = Annotated[Variables, typer.Option(metavar="HOST", help="Block this name or network. Repeatable.")]
IdleAfter = Annotated[
    str | None, typer.Option(metavar="TIME", help="Suspend it after this time without activity: 30s, 10m or never.")
]
DeepSleepAfter = Annotated[
    str | None, typer.Option(metavar="TIME", help="End its processes after this time without activity: 1h or never.")
]
AwakeWhile = Annotated[
    Literal["requests", "processes"] | None,
    typer.Option(help="What is activity: requests alone, or also the work of its own processes."),
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Archive changes within this time while the session is awake: 5s, 10m or never."),
]
Services = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Programs that run whenever the session is awake: a JSON array, as in the API."),
]
OnWake = Annotated[str | None, typer.Option(metavar="COMMAND", help="A command to run after each deep sleep.")]
Image = Annotated[
    str | None, typer.Option(metavar="NAME", help="The image that the session stands on. Default: default.")
]
