"""Runs in a session: tree.py SEED CHANGES – changes its file system at random.

The same seed makes the same changes to the same tree. Prints the number of changes made. Skips a change that the kernel
refuses, for example because a name is taken or a path is too long.
"""
# names may be any bytes, which pathlib does not support
# ruff: noqa: PTH101, PTH102, PTH103, PTH104, PTH105, PTH108, PTH112, PTH114, PTH118, PTH120, PTH208, PTH211

import errno
import os
import random
import shutil
import socket
import stat
import struct
import sys
from collections.abc import Callable

HOMES = [b"/workspace/t", b"/root/t", b"/var/t", b"/tmp/t", b"/usr/local/t"]
IMAGE = b"/usr/share/doc"  # a part of the image that no program needs
MOST_ENTRIES = 300
SKIPPED = {errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EINVAL}
SKIPPED |= {errno.EMLINK, errno.EXDEV, errno.ELOOP, errno.EISDIR}
SKIPPED |= {errno.EOPNOTSUPP}  # overlayfs sets no ACL on a file that is only in a packed layer


class Tree:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.files: list[bytes] = []
        self.directories: list[bytes] = []
        self.others: list[bytes] = []
        for home in HOMES:
            os.makedirs(home, exist_ok=True)
            self._look(home)

    def _look(self, directory: bytes) -> None:
        self.directories.append(directory)
        for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                self._look(entry.path)
            else:
                (self.files if entry.is_file(follow_symlinks=False) else self.others).append(entry.path)

    @property
    def size(self) -> int:
        return len(self.files) + len(self.directories) + len(self.others)

    # --- random choices ---

    def name(self) -> bytes:
        kind = self.rng.random()
        if kind < 0.5:
            return b"f%d" % self.rng.randrange(10_000)
        if kind < 0.6:
            return b"-n \n\t*'\"\\$(x)" + b"%d" % self.rng.randrange(100)
        if kind < 0.65:
            return bytes([self.rng.randrange(97, 123)]) * 255
        if kind < 0.75:
            return "náme-名前-🙂".encode() + b"%d" % self.rng.randrange(100)
        name = self.rng.randbytes(self.rng.randrange(1, 60)).replace(b"\0", b"_").replace(b"/", b"_")
        return name if name not in (b".", b"..") else b"dots"

    def new_path(self) -> bytes:
        return os.path.join(self.rng.choice(self.directories), self.name())

    def content(self) -> bytes:
        size = int(self.rng.choice([0, 1, 100, 4096, 5000, 70_000, 300_000]) * self.rng.random() * 2)
        if self.rng.random() < 0.3:
            return self.rng.randbytes(64) * (size // 64)
        return self.rng.randbytes(size)

    def file(self) -> bytes:
        return self.rng.choice(self.files) if self.files else self.add_file()

    def any(self) -> bytes:
        return self.rng.choice(self.files + self.directories[len(HOMES) :] + self.others or [self.file()])

    # --- changes ---

    def add_file(self) -> bytes:
        path = self.new_path()
        with open(path, "xb") as file:
            file.write(self.content())
        self.files.append(path)
        return path

    def add_directory(self) -> None:
        path = self.new_path()
        os.mkdir(path)
        self.directories.append(path)

    def add_deep(self) -> None:
        path = self.new_path()
        deep = os.path.join(path, *[b"d"] * self.rng.randrange(5, 40))
        os.makedirs(deep)
        self.directories += [path, deep]

    def add_sparse(self) -> None:
        path = self.new_path()
        with open(path, "xb") as file:
            size = self.rng.choice([10_000, 3 << 20, 1 << 30, 1 << 40])
            for _ in range(self.rng.randrange(3)):
                file.seek(self.rng.randrange(size))
                file.write(self.rng.randbytes(self.rng.randrange(1, 10_000)))
            file.truncate(size)
        self.files.append(path)

    def add_link(self) -> None:
        old, path = self.file(), self.new_path()
        os.link(old, path)
        self.files.append(path)

    def add_symlink(self) -> None:
        path = self.new_path()
        long = b"/".join([b"no"] * 1300)
        os.symlink(self.rng.choice([self.any(), b"nowhere", b"../..", b".", b"/etc/passwd", b"\xff\n", long]), path)
        self.others.append(path)

    def add_fifo(self) -> None:
        path = self.new_path()
        os.mkfifo(path, self.rng.choice([0o600, 0o644]))
        self.others.append(path)

    def add_socket(self) -> None:
        parent = self.rng.choice(self.directories)
        os.chdir(parent)  # a socket's address is short
        name = b"s%d" % self.rng.randrange(10_000)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(name)
        self.others.append(os.path.join(parent, name))

    def append(self) -> None:
        with open(self.file(), "ab") as file:
            file.write(self.content())

    def overwrite(self) -> None:
        with open(self.file(), "r+b") as file:
            file.seek(self.rng.randrange(100_000))
            file.write(self.content())

    def truncate(self) -> None:
        os.truncate(self.file(), self.rng.randrange(10_000))

    def preallocate(self) -> None:
        with open(self.file(), "r+b") as file:
            os.posix_fallocate(file.fileno(), self.rng.randrange(100_000), 50_000)

    def replace(self) -> None:
        """Replaces a file with a new one, as editors do."""
        path = self.file()
        beside = os.path.join(os.path.dirname(path), b".new")
        with open(beside, "wb") as file:
            file.write(self.content())
        os.replace(beside, path)

    def rename(self) -> None:
        os.rename(self.any(), self.new_path())
        self._again()

    def delete(self) -> None:
        path = self.any()
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
        self._again()

    def delete_and_make_again(self) -> None:
        path = self.file()
        os.unlink(path)
        os.mkdir(path)
        self._again()

    def change_mode(self) -> None:
        path = self.any()
        if not os.path.islink(path):
            os.chmod(path, self.rng.choice([0, 0o400, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4711, 0o6000]))

    def change_owner(self) -> None:
        ids = [self.rng.choice([0, 1, 1000, 65534, 65535, self.rng.randrange(65536)]) for _ in range(2)]
        os.chown(self.any(), *ids, follow_symlinks=False)

    def change_time(self) -> None:
        times = [-(10**9), -1, 0, 1, 10**9, 2**31 + 5, 4 * 10**9, self.rng.randrange(2 * 10**9)]
        ns = self.rng.choice(times) * 10**9 + self.rng.randrange(10**9)
        os.utime(self.any(), ns=(ns, ns), follow_symlinks=False)

    def set_xattr(self) -> None:
        path = self.rng.choice(self.files + self.directories)
        value = self.rng.randbytes(self.rng.choice([0, 1, 30, 2000]))
        os.setxattr(path, b"user.x%d" % self.rng.randrange(4), value)

    def remove_xattr(self) -> None:
        path = self.any()
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith("user."):
                os.removexattr(path, name)

    def set_capability(self) -> None:
        """Sets cap_net_bind_service, which only root of the session's user namespace may do."""
        os.setxattr(self.file(), b"security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))

    def set_acl(self) -> None:
        """Grants another user access to a file, or sets a directory's default ACL."""
        nobody = 0xFFFFFFFF
        entries = [
            (1, 7, nobody),
            (2, 5, self.rng.randrange(65536)),
            (4, 4, nobody),
            (16, 5, nobody),
            (32, 0, nobody),
        ]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        if self.rng.random() < 0.5:
            os.setxattr(self.file(), b"system.posix_acl_access", acl)
        else:
            os.setxattr(self.rng.choice(self.directories), b"system.posix_acl_default", acl)

    # --- files of the image ---

    def delete_of_image(self) -> None:
        for path in [b"/etc/motd", b"/etc/issue", self._in_image()]:
            if os.path.lexists(path):
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
                return

    def replace_directory_of_image(self) -> None:
        path = self._in_image()
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
            os.mkdir(path)
            with open(os.path.join(path, b"own"), "wb") as file:
                file.write(self.content())

    def change_file_of_image(self) -> None:
        path = self._in_image()
        found = [os.path.join(path, name) for name in sorted(os.listdir(path))] if os.path.isdir(path) else []
        files = [name for name in found if stat.S_ISREG(os.lstat(name).st_mode)]
        if files:
            with open(self.rng.choice(files), "ab") as file:
                file.write(self.content())

    def change_mode_of_image(self) -> None:
        path = self._in_image()
        if not os.path.islink(path):
            os.chmod(path, self.rng.choice([0o700, 0o755, 0o1777]))

    def _in_image(self) -> bytes:
        return os.path.join(IMAGE, self.rng.choice(sorted(os.listdir(IMAGE)) or [b"none"]))

    def _again(self) -> None:
        self.files, self.directories, self.others = [], [], []
        for home in HOMES:
            self._look(home)
        # the homes first: they are never renamed or deleted
        self.directories.sort(key=lambda path: path not in HOMES)


def changes(tree: Tree) -> list[Callable[[], object]]:
    often = (
        [tree.add_file] * 6 + [tree.add_directory] * 2 + [tree.append, tree.overwrite, tree.replace, tree.delete] * 2
    )
    return [
        *often, tree.add_deep, tree.add_sparse, tree.add_link, tree.add_link, tree.add_symlink, tree.add_fifo,
        tree.add_socket, tree.truncate, tree.preallocate, tree.rename, tree.rename, tree.delete_and_make_again,
        tree.change_mode, tree.change_owner, tree.change_owner, tree.change_time, tree.change_time, tree.set_xattr,
        tree.set_xattr, tree.remove_xattr, tree.set_capability, tree.set_acl, tree.delete_of_image,
        tree.replace_directory_of_image, tree.change_file_of_image, tree.change_mode_of_image,
    ]  # fmt: skip


def main(seed: str, count: int) -> None:
    tree = Tree(random.Random(seed))
    tree._again()
    made = 0
    for _ in range(count):
        change = tree.delete if tree.size > MOST_ENTRIES else tree.rng.choice(changes(tree))
        try:
            change()
            made += 1
        except OSError as refused:
            if refused.errno not in SKIPPED:
                raise
            tree._again()
    print(made)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
