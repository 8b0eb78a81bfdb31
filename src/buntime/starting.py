"""The start of `buntime serve`, without the libraries that only other commands use: every start waits for imports."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from buntime.config import BadSetting, from_environment
from buntime.daemon.haste import make_haste


def serve() -> None:
    """Runs the server until it is stopped. Exits with 1 and one line on stderr if it cannot run."""
    make_haste()
    _import_logs()
    from buntime.admin import doctor  # after the logs, which it imports

    try:
        config = from_environment(os.environ)
        with ThreadPoolExecutor(1) as beside:
            missing = beside.submit(doctor.missing, config)  # it mostly waits for other programs
            from buntime.main import serve as run
        run(config, missing.result())
    except BadSetting as refusal:
        print(f"buntime: {refusal}", file=sys.stderr)
        sys.exit(1)


def _import_logs() -> None:
    """structlog imports rich where it can, for tracebacks on terminals. That takes longer than a hundred modules of
    ours, and the server's log is JSON."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # Python's way to say that it cannot be imported
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
