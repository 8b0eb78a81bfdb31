"""An earlier version of this program, from the history of this checkout, set up as an operator sets it up."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
FIRST_FLEET = "e906a554161e513bb052ab43501c038e941ea828"  # the first version whose hosts share a database
SETUP_SECONDS = 600


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Yields a directory with the files of a commit, after `scripts/setup` there. It is gone after the block.

    Skips the test where this checkout lacks the commit, as a shallow clone does: it cannot be had then.
    """
    found = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=CHECKOUT, check=False)
    if found.returncode:
        pytest.skip(f"This checkout lacks commit {commit}: clone it with its whole history.")
    directory = Path(tempfile.mkdtemp(prefix="buntime-landed-", dir="/var/tmp"))
    try:
        directory.chmod(0o755)  # workers of the edge are not root
        archive = subprocess.run(["git", "archive", commit], cwd=CHECKOUT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", directory], input=archive, check=True)
        for made in (".tools", ".clients"):  # `scripts/setup` takes what is current of it
            shutil.copytree(CHECKOUT / made, directory / made, symlinks=True, dirs_exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        done = subprocess.run(
            ["scripts/setup"],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SETUP_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"scripts/setup of {commit} failed:\n{done.stdout[-3000:]}")
        yield directory
    finally:
        shutil.rmtree(directory)
