"""Debian's `python3 -m ensurepip`, but that a new venv gets a copy of a pip that is unpacked and compiled already.

`finish` puts this file in place of ensurepip's `__main__.py`. Any other call goes to ensurepip.
"""

import ensurepip
import subprocess
import sys
import sysconfig
from pathlib import Path

PREPARED = Path("/usr/lib/python3/pip-of-venvs")
OF_VENV = ["--upgrade", "--default-pip"]
SCRIPT = """#!{python}
import sys
from pip._internal.cli.main import main
if __name__ == '__main__':
    sys.exit(main())
"""


def main() -> int | None:
    packages, scripts = (Path(sysconfig.get_path(name)) for name in ("purelib", "scripts"))
    in_venv = sys.prefix != sys.base_prefix
    if in_venv and sys.argv[1:] == OF_VENV and PREPARED.is_dir() and not (packages / "pip").exists():
        copied = subprocess.run(["cp", "-a", f"{PREPARED}/.", packages], check=False)
        if copied.returncode == 0:
            for name in ("pip", "pip3", "pip{}.{}".format(*sys.version_info)):
                (scripts / name).write_text(SCRIPT.format(python=sys.executable))
                (scripts / name).chmod(0o755)
            return 0
    if not in_venv:
        ensurepip._ensurepip_is_disabled_in_debian_for_system()
    return ensurepip._main()


if __name__ == "__main__":
    sys.exit(main())
