"""Sessions whose files are in the layer of an image: what they do with them works as with files of their own."""

import asyncio
import os
from dataclasses import replace

import pytest

from buntime.image import MADE_PREFIX
from buntime.inside import FileToWrite
from buntime.plan import MB, Limits
from buntime.ports import Run, Sandbox
from buntime.session import Session
from buntime.snapshot import MadeImage
from tests.contracts.test_sandboxes import REAL, LocalHost, layer_of
from tests.sandboxes.test_root import same_for_all, session_of

pytestmark = REAL

LIMITS = Limits(memory=1024, cpu=2.0, timeout=120, disk=1024)
SECONDS = 100.0  # for one run; a guard against a hang

# A tree as a package manager makes it: hard links into a store, a nested package, and links to programs.
SETUP = """
set -e
mkdir -p app/node_modules/.bin store && cd app
for package in one two two/node_modules/three; do
  mkdir -p node_modules/$package/lib
  for n in 1 2 3 4 5; do
    echo "$package $n" > ../store/${package//\\//-}-$n.js
    ln ../store/${package//\\//-}-$n.js node_modules/$package/lib/$n.js
  done
  printf '{"name": "%s", "version": "1.0.0"}' ${package##*/} > node_modules/$package/package.json
done
ln -s ../one/lib/1.js node_modules/.bin/one
mkdir -p deep/a/b/c other && echo deep > deep/a/b/c/file && echo own > other/own
"""

# What a session does with the tree. Every step must work, and leave the same behind wherever the tree comes from.
STEPS = """
set -e
cd app
mv node_modules/one node_modules/uno
mv node_modules/uno/lib node_modules/uno/library
mv node_modules node_modules.old && mv node_modules.old node_modules
echo new > node_modules/uno/library/6.js
rm node_modules/uno/library/2.js
mv deep/a other/moved && echo more >> other/moved/b/c/file
mkdir empty && mv -T other empty
python3 -c "import os; os.rename('deep', 'deeper'); os.rename('deeper', 'deep')"
ln node_modules/two/lib/1.js hard && echo appended >> hard && cmp hard node_modules/two/lib/1.js
ln node_modules/two/lib/3.js hard3 && mv hard3 hard-moved && [ $(stat -c %h hard-moved) -ge 2 ]
chmod 600 node_modules/two/lib/4.js
chown 1000:1000 node_modules/two
ln -sf 4.js node_modules/two/lib/link && mv node_modules/two/lib/link node_modules/two/lib/5.js
rm -rf node_modules/two/node_modules && mkdir -p node_modules/two/node_modules/three
echo again > node_modules/two/node_modules/three/only
[ "$(ls node_modules/two/node_modules/three)" = only ]
cp -a node_modules copy && diff -r --no-dereference node_modules copy
tar cf /tmp/tree.tar . && mkdir /tmp/tree && tar xf /tmp/tree.tar -C /tmp/tree
diff -r --no-dereference . /tmp/tree && rm -rf /tmp/tree*
rm -rf copy && mkdir copy && echo "$(ls -A copy | wc -l)"
rm -rf /workspace/store && [ ! -e /workspace/store ]
"""
LOOK = """
cd /workspace/app; find . -printf '%P %y %m %U %G %l\\n' | sort; find . -type f | sort | xargs sha256sum
"""


async def claimed(host: LocalHost, image: str = "", name: str = "a") -> tuple[Session, Sandbox]:
    claim = await host.sandboxes.claim("ses_" + name * 18, LIMITS, image)
    return replace(session_of(claim), limits=LIMITS, image=claim.image), claim.sandbox


async def image_of(host: LocalHost, session: Session) -> MadeImage:
    layer = await layer_of(host, session.volume)
    made = MadeImage(MADE_PREFIX + layer, session.image, layer, {}, size=0, created_at=0)
    await host.sandboxes.know(made)
    return made


async def says(sandbox: Sandbox, command: str) -> str:
    result = await sandbox.run(Run(SECONDS, command=command))
    assert result.exit_code == 0, (result.stdout[-2000:], result.stderr[-2000:])
    return result.stdout.decode()


async def slept(host: LocalHost, session: Session, sandbox: Sandbox) -> None:
    """Stops the session and brings its volume back from a stream, as after a deep sleep on another host."""
    await sandbox.quiesce()
    await host.sandboxes.stop(replace(session, sandbox=sandbox.id))
    volumes = host.sandboxes.volumes
    pieces = await asyncio.to_thread(lambda: list(volumes.send(session.volume)))
    await volumes.remove(session.volume)
    await asyncio.to_thread(volumes.receive, session.volume, session.limits.disk, iter(pieces))


async def test_a_tree_of_packages_in_a_layer_can_be_changed_as_one_of_the_sessions_own(host: LocalHost) -> None:
    first, sandbox = await claimed(host)
    await says(sandbox, SETUP)
    made = await image_of(host, first)
    expected = await says(sandbox, STEPS + LOOK)

    session, sandbox = await claimed(host, made.id, "b")
    assert await says(sandbox, STEPS + LOOK) == expected
    looked = await says(sandbox, LOOK)
    await slept(host, session, sandbox)
    sandbox = await host.sandboxes.start(session)
    assert await says(sandbox, LOOK) == looked

    above = await image_of(host, session)  # its renamed directories are found by their marks in a lower layer
    _, sandbox = await claimed(host, above.id, "c")
    assert await says(sandbox, LOOK) == looked
    assert (
        await says(sandbox, "cd app; mv empty filled; mv filled/moved/b filled; cat filled/b/c/file") == "deep\nmore\n"
    )
    _, untouched = await claimed(host, made.id, "d")
    assert await says(untouched, "cat app/deep/a/b/c/file app/node_modules/one/lib/2.js") == "deep\none 2\n"


async def test_directories_of_the_image_can_be_renamed_and_stay_so_after_deep_sleep(host: LocalHost) -> None:
    session, sandbox = await claimed(host)
    inside = await says(sandbox, "ls -R /usr/share/perl5 | sha256sum")
    await says(sandbox, "python3 -c \"import os; os.rename('/usr/share/perl5', '/workspace/perl')\"")
    await slept(host, session, sandbox)
    again = await host.sandboxes.start(session)
    assert await says(again, "cd /workspace; ls -R perl | sed 's,^perl,/usr/share/perl5,' | sha256sum") == inside
    assert (await again.run(Run(SECONDS, command="ls /usr/share/perl5"))).exit_code != 0


async def test_a_directory_with_a_path_of_more_than_256_bytes_is_moved_by_copying(host: LocalHost) -> None:
    """Overlayfs notes where a renamed directory was, and takes no longer paths. `mv` copies then."""
    first, sandbox = await claimed(host)
    deep = "/".join(["d" * 100] * 3)
    await says(sandbox, f"mkdir -p {deep}/a to; echo x > {deep}/a/file")
    made = await image_of(host, first)
    _, sandbox = await claimed(host, made.id, "b")
    renamed = await sandbox.run(Run(SECONDS, command=f"python3 -c \"import os; os.rename('{deep}/a', 'to/a')\""))
    assert b"Invalid cross-device link" in renamed.stderr
    assert await says(sandbox, f"mv {deep}/a to; cat to/a/file; ls {deep} | wc -l; mv {deep} {deep}2") == "x\n0\n"


async def test_no_two_files_of_any_layers_have_the_same_number(host: LocalHost) -> None:
    """Each subvolume numbers its files from the same start. Of files with one number, `tar` makes one file."""
    make = "for n in $(seq 300); do echo {0} $n > {0}$n; ln {0}$n {0}$n.link; done"
    session, sandbox = await claimed(host)
    await says(sandbox, make.format("a"))
    for name in "bcd":
        made = await image_of(host, session)
        session, sandbox = await claimed(host, made.id, name)
        await says(sandbox, make.format(name))
    assert await says(sandbox, "find . -type f ! -name '*.link' -printf '%D:%i\n' | sort | uniq -d") == ""
    copy = "mkdir /tmp/x; tar c . | tar x -C /tmp/x; diff -r . /tmp/x; find /tmp/x -type f | wc -l"
    assert await says(sandbox, copy) == "2400\n"


async def test_hard_links_of_a_layer_part_when_one_of_their_names_is_written(host: LocalHost) -> None:
    """What decision 22 says does not work: each name is copied up for itself."""
    first, sandbox = await claimed(host)
    await says(sandbox, "echo old > a; ln a b; ln a c")
    made = await image_of(host, first)
    _, sandbox = await claimed(host, made.id, "b")
    assert await says(sandbox, "echo new > a; cat a b c; ln b d; echo more >> d; cat b d c") == (
        "new\nold\nold\n" + "old\nmore\n" * 2 + "old\n"
    )


PACKAGE = """
set -e
pack() {{
  mkdir -p /tmp/src/package/lib && cd /tmp/src
  printf '{{"name": "%s", "version": "%s", "main": "lib/main.js"}}' $1 $2 > package/package.json
  echo "module.exports = '$1 $2'" > package/lib/main.js
  for n in $(seq 50); do echo $1 $2 $n > package/lib/$n.js; done
  tar czf /workspace/$1-$2.tgz package && rm -rf /tmp/src
}}
pack one 1.0.0; pack one 2.0.0; pack two 1.0.0; pack two 1.5.0
cd /workspace && echo '{{"name": "app"}}' > package.json
{install} && bun -e "console.log(require('one'), require('two'))"
"""


@pytest.mark.parametrize(("add", "again"), [("bun add", "bun install"), ("npm install", "npm install")])
async def test_packages_of_a_layer_are_replaced_removed_and_installed_again(
    host: LocalHost, add: str, again: str
) -> None:
    show = "bun -e \"console.log(require('one'), require('two'))\""
    first, sandbox = await claimed(host)
    made_by = await says(sandbox, PACKAGE.format(install=f"{add} ./one-1.0.0.tgz ./two-1.0.0.tgz > /tmp/log 2>&1"))
    assert made_by == "one 1.0.0 two 1.0.0\n"
    made = await image_of(host, first)
    session, sandbox = await claimed(host, made.id, "b")
    assert await says(sandbox, show) == "one 1.0.0 two 1.0.0\n"
    assert await says(sandbox, f"{add} ./one-2.0.0.tgz > /tmp/log 2>&1; {show}") == "one 2.0.0 two 1.0.0\n"
    assert await says(sandbox, "cat node_modules/one/lib/*.js | grep -c 'one 2.0.0'") == "51\n"
    assert await says(sandbox, f"rm -rf node_modules; {again} > /tmp/log 2>&1; {show}") == "one 2.0.0 two 1.0.0\n"
    assert await says(sandbox, f"mv node_modules kept; {add} ./two-1.5.0.tgz > /tmp/log 2>&1; {show}") == (
        "one 2.0.0 two 1.5.0\n"
    )
    assert await says(sandbox, "cat kept/two/lib/main.js") == "module.exports = 'two 1.0.0'\n"
    before = await says(sandbox, "find . -type f | sort | xargs sha256sum")
    await slept(host, session, sandbox)
    sandbox = await host.sandboxes.start(session)
    assert await says(sandbox, "find . -type f | sort | xargs sha256sum") == before
    assert await says(sandbox, show) == "one 2.0.0 two 1.5.0\n"


async def test_real_packages_of_a_layer_are_upgraded(host: LocalHost) -> None:
    """Needs the npm registry."""
    show = "bun -e \"console.log(require('semver/package.json').version, require('semver').gt('1.2.3', '1.2.2'))\""
    first, sandbox = await claimed(host)
    await says(sandbox, 'echo \'{"name": "app"}\' > package.json; bun add semver@6.3.1 is-odd@3.0.1 > /tmp/log 2>&1')
    made = await image_of(host, first)
    _, sandbox = await claimed(host, made.id, "b")
    assert await says(sandbox, show) == "6.3.1 true\n"
    assert await says(sandbox, f"npm install semver@7.6.3 > /tmp/log 2>&1; {show}") == "7.6.3 true\n"
    assert await says(sandbox, f"rm -rf node_modules; bun install > /tmp/log 2>&1; {show}") == "7.6.3 true\n"
    assert await says(sandbox, "bun -e \"console.log(require('is-odd')(3))\"") == "true\n"


@pytest.mark.parametrize(
    "target", [b"/../../../../../../../../etc", b"../../../../etc", b"..", b"/proc/1/root/etc", b"/workspace/link"]
)
@pytest.mark.parametrize("where", ["volume", "layer"])
async def test_a_redirect_leads_nowhere_but_into_the_layers_below(host: LocalHost, where: str, target: bytes) -> None:
    """A session cannot set one, and streams are authenticated. If it could, nothing of the host would be in reach."""
    session, sandbox = await claimed(host)
    await says(sandbox, "mkdir dir; ln -s /etc link; echo own > dir/own")
    await sandbox.quiesce()
    await host.sandboxes.stop(session)
    upper = host.data_dir / "volumes" / session.volume / "upper"
    os.setxattr(upper / "workspace/dir", "trusted.overlay.redirect", target)
    if where == "layer":
        session, sandbox = await claimed(host, (await image_of(host, session)).id, "b")
    else:
        sandbox = await host.sandboxes.start(session)
    seen = await sandbox.run(Run(SECONDS, command="ls -A dir; cat dir/hostname dir/passwd"))
    assert seen.stdout in (b"", b"own\n"), seen


async def test_a_session_can_neither_set_nor_see_what_steers_the_overlay(host: LocalHost) -> None:
    _, sandbox = await claimed(host)
    program = """
import os
os.mkdir('dir')
for name in ('trusted.overlay.redirect', 'trusted.overlay.opaque', 'trusted.overlay.overlay.opaque'):
    try:
        os.setxattr('dir', name, b'y'); print('set', name)
    except OSError as failed:
        print(failed.errno)
os.rename('/usr/share/perl5', 'perl')
print(os.listxattr('perl'))
"""
    assert await says(sandbox, f"cat > t.py <<'EOF'\n{program}\nEOF\npython3 t.py") == "1\n1\n1\n[]\n"


async def test_what_is_left_of_a_layer_in_the_mount_table_is_the_same_after_a_start_from_nothing(
    host: LocalHost,
) -> None:
    first, _ = await claimed(host)
    made = await image_of(host, first)
    session, sandbox = await claimed(host, made.id, "b")
    table = await says(sandbox, "cat /proc/self/mountinfo")
    assert "/var/" not in table
    assert "loop" not in table
    await host.sandboxes.kill(sandbox.id)
    again = await host.sandboxes.start(session)
    assert same_for_all(await says(again, "cat /proc/self/mountinfo"), again) == same_for_all(table, sandbox)


IN_MEMORY = """
import ctypes, mmap, os
size = os.path.getsize("big")
file = open("big", "rb")
mapped = mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
pages = (ctypes.c_ubyte * (size // 4096))()
address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
print(sum(page & 1 for page in pages) * 4096 * 100 // size)
"""


async def test_sessions_on_one_image_share_its_pages_in_memory(host: LocalHost) -> None:
    first, sandbox = await claimed(host)
    await sandbox.files.write_batch([FileToWrite("/workspace/look.py", IN_MEMORY.encode())])
    await says(sandbox, "head -c 64M /dev/urandom > big")
    made = await image_of(host, first)
    above = await image_of(host, (await claimed(host, made.id, "b"))[0])
    sessions = [
        (await claimed(host, image, name))[1] for image, name in ((made.id, "c"), (made.id, "d"), (above.id, "e"))
    ]
    shown = [await says(session, "python3 look.py") for session in sessions]
    assert [int(percent) for percent in shown] == [0, 0, 0]
    await says(sessions[0], "cat big > /dev/null")
    shown = [await says(session, "python3 look.py") for session in sessions]
    assert min(int(percent) for percent in shown) > 95
    again = await sessions[1].run(Run(SECONDS, command="cat big > /dev/null"))
    assert again.peak_memory < 32 * MB  # the pages are the first one's
