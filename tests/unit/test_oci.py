"""The OCI runtime's directory is read after a restart."""

import os
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.oci import Runtime

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mount points take root")]


def test_the_runtimes_own_files_are_no_containers(tmp_path: Path) -> None:
    runtime = Runtime("crun", tmp_path)
    (tmp_path / "buntime-abcd-sb1").mkdir()
    (tmp_path / ".cache/seccomp").mkdir(parents=True)
    assert runtime.known() == {"buntime-abcd-sb1"}
    runtime.close()
