"""Sessions run a copy of Bun that is in huge pages. It differs from the image's own file in padding."""

import asyncio
import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.ports import Run, Sandbox
from buntime.sandboxes.kernel.aligned import HUGE
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.huge import BUN, GUEST, ROOT, Huge
from buntime.sandboxes.kernel.image import GUEST_DIR, ensure_image
from buntime.sandboxes.kernel.mount_calls import mount
from tests.contracts.test_sandboxes import LIMITS, REAL, LocalHost
from tests.sandboxes.processes import processes_in

pytestmark = REAL
UID = 1_000_000
LOOKS = 100
KEEPS_OUT = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 4)
SMAPS = 'console.log(require("fs").readFileSync("/proc/self/smaps", "utf8"))'


async def image_of(host: LocalHost) -> Path:
    return (await ensure_image(host._config.images, print)).path


def copies(directory: Path) -> list[Path]:
    return [place for place in (directory / "huge").iterdir() if os.path.ismount(place)]


async def said(sandbox: Sandbox, command: str) -> str:
    result = await sandbox.run(Run(timeout=20, command=command))
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode()


async def test_bun_of_a_session_is_in_huge_pages(host: LocalHost) -> None:
    if not copies(host.data_dir):
        pytest.skip("this kernel has no huge pages in a tmpfs, or no id maps for it")
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    maps = await said(sandbox, f"bun -e '{SMAPS}'")
    sizes = {
        permissions: int(mapping.partition("ShmemPmdMapped:")[2].split()[0])
        for permissions, mapping in re.findall(r"^\S+ (r.?[-x]p) \S+ \S+ \d+ +\S+/bun\n((?:\w+: .*\n)+)", maps, re.M)
        if permissions in {"r--p", "r-xp"}
    }
    assert sizes["r-xp"] >= 10 * HUGE >> 10, sizes  # kB


async def test_a_program_that_is_compiled_in_a_session_runs(host: LocalHost) -> None:
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", replace(LIMITS, disk=400))).sandbox
    await said(sandbox, "echo 'console.log(6 * 7, process.argv.length)' > a.ts && bun build --compile a.ts --outfile a")
    assert (await said(sandbox, "./a b")).strip() == "42 3"


async def test_a_session_sees_the_file_and_its_directories_as_they_are_in_the_image(host: LocalHost) -> None:
    image = await image_of(host)
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    there = (image / BUN).stat()
    shown = await said(sandbox, f"stat -c '%f %u %g %Y' /{BUN}")
    assert shown.strip() == f"{there.st_mode:x} 0 0 {int(there.st_mtime)}"
    for parent in [*BUN.parents][:-1]:
        there = (image / parent).stat()
        shown = await said(sandbox, f"stat -c '%f %u %g %Y' /{parent}")
        assert shown.strip() == f"{there.st_mode:x} 0 0 {int(there.st_mtime)}"
    names = await said(sandbox, "ls /usr/local/bin /usr/local")
    assert {*names.split()} >= {path.name for path in (image / BUN.parent).iterdir()}


def maps_in(host: LocalHost, sandbox: Sandbox) -> str:
    """What all processes of the sandbox have mapped."""
    found = ""
    for process in processes_in(host, sandbox):
        with suppress(OSError):
            found += (process / "maps").read_text()
    return found


async def test_no_program_that_every_sandbox_maps_is_in_pages_that_the_kernel_could_take(host: LocalHost) -> None:
    if not copies(host.data_dir):
        pytest.skip("this kernel has no huge pages in a tmpfs, or no id maps for it")
    sandbox = (await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)).sandbox
    programs = {f"/run/guest/{name}" for name in ("guest", "ld.so", "sh", "lib/libc.so.6")}
    mapped = set[str]()
    for _ in range(LOOKS):  # from outside: a run would take the parked process, whose programs most of them are
        mapped |= set(re.findall(r" (/run/guest/\S+)$", maps_in(host, sandbox), re.M))
        if programs <= mapped:
            break
        await asyncio.sleep(0.1)
    assert programs <= mapped
    (copy,) = copies(host.data_dir)
    for path in mapped:
        assert (copy / GUEST / Path(path).relative_to("/run/guest")).is_file()
    shown = await said(sandbox, "cd /run/guest && stat -c '%n %f %u %g %s %Y' guest ld.so sh lib lib/*")
    guest = (await image_of(host)) / GUEST_DIR
    for line in shown.splitlines():
        name, *seen = line.split()
        there = (guest / name).stat()
        size = seen[3] if name == "lib" else str(there.st_size)
        assert seen == [f"{there.st_mode:x}", "0", "0", size, str(int(there.st_mtime))]


async def test_a_session_may_replace_or_remove_its_bun(host: LocalHost) -> None:
    claims = [await host.sandboxes.claim(f"ses_abc123def456ghi78{n}", LIMITS) for n in range(2)]
    one, other = (claimed.sandbox for claimed in claims)
    await said(one, "rm /usr/local/bin/bun && ! test -e /usr/local/bin/bun")
    await said(one, "echo '#!/bin/sh' > /usr/local/bin/bun && chmod +x /usr/local/bin/bun && bun")
    assert (await said(other, "bun -e 'console.log(41 + 1)'")).strip() == "42"


async def test_the_next_server_uses_the_same_copy(host: LocalHost) -> None:
    before = [(place.name, place.stat().st_dev) for place in copies(host.data_dir)]
    await host.reopen({})
    assert [(place.name, place.stat().st_dev) for place in copies(host.data_dir)] == before


@pytest.mark.parametrize("knows", [True, False])
async def test_a_kernel_that_can_keeps_the_copy_out_of_swap(
    knows: bool, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mounted(source: str, target: Path, kind: str, flags: int, options: str) -> None:
        if not knows and "noswap" in options:
            raise HostCommandFailed("mount buntime-huge: Invalid argument")
        mount(source, target, kind, flags, options)

    image, directory = await image_of(host), host.data_dir / "other"
    monkeypatch.setattr("buntime.sandboxes.kernel.huge.mount", mounted)
    huge = Huge(directory)
    huge.offer(image, UID)
    options = [line.split()[3] for line in Path("/proc/mounts").read_text().splitlines() if str(directory) in line]
    assert (huge.over(image) is None) == (not copies(host.data_dir))
    assert ["noswap" in each for each in options] == [knows and KEEPS_OUT] * len(options)
    huge.forget()


async def test_nothing_is_left_after_a_purge(host: LocalHost) -> None:
    directory = host.data_dir
    claimed = await host.sandboxes.claim("ses_abc123def456ghi789", LIMITS)
    await said(claimed.sandbox, "true")
    huge = Huge(directory / "huge")
    huge.forget()
    assert not (directory / "huge").exists()
    assert str(directory / "huge") not in Path("/proc/self/mounts").read_text()
    assert (await said(claimed.sandbox, "bun -e 'console.log(42)'")).strip() == "42"  # it keeps what it runs on


async def test_a_copy_that_a_killed_server_left_incomplete_is_made_again(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    image, directory = await image_of(host), host.data_dir / "other"
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        Huge(directory).offer(image, UID)
    monkeypatch.undo()
    huge = Huge(directory)
    huge.offer(image, UID)
    if (place := huge.over(image)) is not None:
        assert 0 <= (place / GUEST / "bun").stat().st_size - (image / BUN).stat().st_size < HUGE
        assert (place / ROOT / BUN).samefile(place / GUEST / "bun")
    huge.forget()


async def test_another_bun_is_left_alone(host: LocalHost, tmp_path: Path) -> None:
    image = await image_of(host)
    (tmp_path / BUN).parent.mkdir(parents=True)
    (tmp_path / BUN).write_bytes(b"another")
    huge = Huge(host.data_dir / "other")
    huge.offer(image, UID)
    assert huge.over(tmp_path) is None
    huge.forget()


async def test_a_host_that_cannot_do_it_uses_the_image_as_it_is(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise HostCommandFailed("mount buntime-huge: Invalid argument")

    image, directory = await image_of(host), host.data_dir / "other"
    monkeypatch.setattr("buntime.sandboxes.kernel.huge.mount", refused)
    huge = Huge(directory)
    huge.offer(image, UID)
    assert huge.over(image) is None
    assert not directory.exists()
