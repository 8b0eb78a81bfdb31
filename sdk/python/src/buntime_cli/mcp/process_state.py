"""What became of a process, in one sentence."""

from buntime_sdk import AsyncProcess


def state_of(process: AsyncProcess, port: int | None, seconds: int | None) -> str:
    """`port`: the one that was waited for; None for a line of output. `seconds`: how long; None if nothing was."""
    name = process.id if process.name is None else f"{process.id} ({process.name})"
    ended = None if process.status == "running" else f"has ended ({how_ended(process) or process.status})"
    if process.ready is None:
        return f"{name} {ended or 'is running'}."
    if process.ready:
        return f"{name} {_ready(port, ended)}."
    if process.port_was_in_use:
        return f"{name} {ended or 'still runs'}. {_in_use(port)}"
    if ended is not None:
        awaited = "a line of output matched" if port is None else f"anything listened on port {port}"
        return f"{name} {ended} before {awaited}."
    missing = "no line of output matched" if port is None else f"nothing listened on port {port}"
    return f"{name} still runs, but {missing} within {seconds} s."


def how_ended(process: AsyncProcess) -> str:
    """The exit code and the reason, as far as they are known."""
    code = "" if process.exit_code is None else f"exit code {process.exit_code}"
    return " ".join(part for part in (code, process.reason) if part)


def _ready(port: int | None, ended: str | None) -> str:
    if ended is not None:
        did = "printed the line that you waited for" if port is None else f"listened on port {port}"
        return f"{did}, and {ended}"
    does = "printed the line that you waited for" if port is None else f"listens on port {port}"
    return f"is running and {does}"


def _in_use(port: int | None) -> str:
    return (
        f"Port {port} was already in use before the process started. "
        "Stop the program there (see list_processes) or use another port."
    )
