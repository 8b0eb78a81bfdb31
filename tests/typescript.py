"""Makes each file `*.test.ts` a pytest test that Bun runs, so that one command runs the tests of both languages."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 600  # a guard against a hang


class BunFailed(Exception):
    """The message is Bun's output."""


# The guest gives up prepared processes when a parent directory changes. Other tests change /tmp.
ALONE = ("prepared.test.ts",)

PACKAGES = ("package.test.ts",)


class TypeScriptItem(pytest.Item):
    def runtest(self) -> None:
        bun = subprocess.run([ROOT / "scripts/bun"], capture_output=True, text=True, check=True).stdout.strip()
        done = subprocess.run(
            # a busy machine needs more than Bun's default of 5 s per test
            [f"{bun}/bun", "test", "--timeout", "60000", f"./{self.path.relative_to(self.project)}"],
            cwd=self.project, env=os.environ | {"PATH": f"{bun}:{os.environ['PATH']}"} | self.program(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise BunFailed(done.stdout)

    def program(self) -> dict[str, str]:
        """Tests of the guest start it."""
        if self.project.name != "guest":
            return {}
        made = subprocess.run([ROOT / "scripts/native"], capture_output=True, text=True, check=True)
        return {"GUEST_PROGRAM": made.stdout.strip()}

    @property
    def project(self) -> Path:
        return next(directory for directory in self.path.parents if (directory / "package.json").exists())

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.path.name


class TypeScriptFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        item = TypeScriptItem.from_parent(self, name=self.path.name)
        if self.path.name in ALONE:
            item.add_marker(pytest.mark.alone)
        if self.path.name in PACKAGES:
            item.add_marker(pytest.mark.packages)
        yield item


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return TypeScriptFile.from_parent(parent, path=file_path) if file_path.name.endswith(".test.ts") else None
