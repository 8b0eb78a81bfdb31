"""`scripts/link` puts `buntime` on PATH, and replaces nobody else's command."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ROOT / ".venv/bin/buntime"


def linked(directory: Path, *path: Path) -> Path:
    """Runs scripts/link for a directory. Returns the path of the command in it."""
    search = ":".join([*map(str, path), "/usr/bin", "/bin"])
    subprocess.run([ROOT / "scripts/link", directory], env={"PATH": search}, check=True)
    return directory / "buntime"


def test_the_command_is_linked_once(tmp_path: Path) -> None:
    assert linked(tmp_path).readlink() == OURS
    assert linked(tmp_path).readlink() == OURS


def test_a_link_to_a_checkout_that_is_gone_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "buntime").symlink_to("/nonexistent/.venv/bin/buntime")
    assert linked(tmp_path).readlink() == OURS


def test_another_checkouts_link_stays(tmp_path: Path) -> None:
    other = tmp_path / "other/.venv/bin/buntime"
    other.parent.mkdir(parents=True)
    other.touch()
    (tmp_path / "buntime").symlink_to(other)
    assert linked(tmp_path).readlink() == other


@pytest.mark.parametrize("target", ["/nonexistent/buntime", "/etc/passwd"])
def test_a_foreign_link_stays(target: str, tmp_path: Path) -> None:
    (tmp_path / "buntime").symlink_to(target)
    assert linked(tmp_path).readlink() == Path(target)


def test_a_foreign_file_stays(tmp_path: Path) -> None:
    (tmp_path / "buntime").write_text("somebody's")
    assert linked(tmp_path).read_text() == "somebody's"


def test_a_command_elsewhere_on_path_is_not_hidden(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign/buntime"
    foreign.parent.mkdir()
    foreign.touch(mode=0o755)
    (tmp_path / "bin").mkdir()
    assert not linked(tmp_path / "bin", foreign.parent).exists()
