"""What a host of a fleet keeps of images: the one that it makes, under the name of its content, and what it uses."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.daemon import steps
from buntime.sandboxes.images.host_image import HostImage
from buntime.sandboxes.images.noted import note_guest, noted_default
from buntime.sandboxes.images.pruning import prune

pytestmark = pytest.mark.root


def host(directory: Path, day: str) -> HostImage:
    """Its packages are of this day."""
    config = Config(data_dir=directory / "data", images_dir=directory / "images")
    (config.data_dir / "sandboxes").mkdir(parents=True)
    made = HostImage(config, print)
    root = config.images / made.recipe
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_text(day)
    (root / "usr/bin/tool").chmod(0o755)
    os.link(root / "usr/bin/tool", root / "same")
    return made


async def used() -> set[str]:
    """By the store."""
    return set()


async def test_an_image_has_the_name_of_its_content_without_a_copy(tmp_path: Path) -> None:
    one, same, other = host(tmp_path / "a", "monday"), host(tmp_path / "b", "monday"), host(tmp_path / "c", "tuesday")
    image = one.name()
    assert same.name() == image
    assert other.name() != image
    tool = one.config.images / image / "usr/bin/tool"
    assert tool.stat().st_nlink == 4
    assert one.name() == image
    assert tool.stat().st_nlink == 4, "it is not kept twice"


async def test_the_image_of_another_day_is_fetched_and_used(tmp_path: Path) -> None:
    one, other = host(tmp_path / "a", "monday"), host(tmp_path / "b", "tuesday")
    image, own = one.name(), other.name()
    other.note(image)
    other.roots.receive(image, one.roots.send(image))
    found = noted_default(other.config)
    assert found is not None
    assert (found.path / "usr/bin/tool").read_text() == "monday"
    assert await prune(other.config, used) == [own]
    assert (other.config.images / other.recipe).is_dir(), "it stays for sessions of earlier versions"


async def test_an_image_goes_after_an_upgrade_with_the_last_guest_that_runs_from_it(tmp_path: Path) -> None:
    one = host(tmp_path, "monday")
    old, sandbox = one.name(), one.config.data_dir / "sandboxes/sbx_1"
    sandbox.mkdir()
    note_guest(sandbox, old)
    one.note("root-" + "0" * 32)  # which is not here yet
    assert await prune(one.config, used) == []
    (sandbox / "guest").unlink()
    sandbox.rmdir()
    assert await prune(one.config, used) == [old]


async def test_a_host_without_a_fleet_notes_nothing(tmp_path: Path) -> None:
    one = host(tmp_path, "monday")
    note_guest(tmp_path, one.recipe)
    assert not (tmp_path / "guest").exists()
    assert noted_default(one.config) is None


async def test_servers_that_share_a_directory_do_not_remove_each_others_images(tmp_path: Path) -> None:
    one = host(tmp_path / "a", "monday")
    second = HostImage(replace(one.config, data_dir=tmp_path / "b"), print)
    second.config.data_dir.mkdir()
    image = one.name()
    second.roots.receive(image, iter(()))
    one.note("root-" + "0" * 32)
    assert await prune(one.config, used) == []
    second.note("root-" + "0" * 32)
    assert await prune(second.config, used) == [image]


def dies(work: Callable[[], object], at: str = "") -> None:
    """A process of its own does the work, and is killed at this step."""
    child = os.fork()
    if child == 0:
        steps.hook = lambda step: _die() if step == at else None
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_host_that_is_killed_goes_on_where_it_was_and_leaves_nothing(tmp_path: Path) -> None:
    one, other = host(tmp_path / "a", "monday"), host(tmp_path / "b", "tuesday")
    for step in ("image: written", "image: marked", "image: put"):
        dies(one.name, step)
    image = one.name()
    other.note(image)

    def cut() -> Iterator[bytes]:
        yield next(one.roots.send(image))[:100]
        _die()

    dies(lambda: other.roots.receive(image, cut()))
    for step in ("image: written", "image: marked"):
        dies(lambda: other.roots.receive(image, one.roots.send(image)), step)
    other.roots.receive(image, one.roots.send(image))
    for each in (one, other):
        assert await prune(each.config, used) == []
        found = {path.name for path in each.config.images.iterdir() if not path.name.startswith(one.recipe)}
        assert found == {".lock", "uses", image}
