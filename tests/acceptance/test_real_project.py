"""A TypeScript project of 200 files is uploaded, searched, type-checked, run, tested, built and downloaded.

Needs the npm registry for the compiler.
"""

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.acceptance.client import Session
from tests.acceptance.inside import project
from tests.acceptance.server import IMAGES

pytestmark = pytest.mark.sandbox

SECONDS = 120  # for one run; a guard against a hang
INSTALL = "bun install > /tmp/log 2>&1 || { cat /tmp/log; exit 1; }"
BUILD = "bun build src/main.ts --target bun --outdir /workspace/out --splitting --minify --sourcemap=linked"
PRINTED = json.dumps(project.printed(), separators=(",", ":")) + "\n"


def test_a_project_of_two_hundred_files_is_checked_built_run_and_tested(session: Session) -> None:
    files = project.files()
    assert len(files) > 200
    sent = [{"path": f"app/{path}", "content": content} for path, content in files.items()]
    installed = session.command(f"cd app && {INSTALL}", files=sent, timeout=SECONDS)
    assert installed["exitCode"] == 0, installed
    assert set(installed["filesWritten"]) == {f"app/{path}" for path in [*files, "bun.lock"]}

    assert session.output("bun src/main.ts", workingDir="app") == PRINTED
    assert session.code("import '@area9/step3'; await import('./src/main')", workingDir="app")["stdout"] == PRINTED
    assert session.output("bunx tsc --project .", workingDir="app", timeout=SECONDS) == ""

    built = session.command(BUILD, workingDir="app")
    assert (built["exitCode"], "out/main.js" in built["filesWritten"]) == (0, True), built
    assert session.output("bun /workspace/out/main.js", workingDir="/") == PRINTED

    tested = session.command("bun test", workingDir="app", timeout=60)
    assert tested["exitCode"] == 0, tested["stderr"][-2000:]
    assert f"\n {project.TESTS} pass\n 0 fail\n" in tested["stderr"]


def test_mistakes_in_a_project_of_two_hundred_files_are_told_with_their_places(session: Session) -> None:
    path = project.step_path(7, 11)
    files = project.files()
    files[path] += "const wrong: string = step.value;\nif (wrong) throw new Error('in the middle');\n"
    line = files[path].count("\n")
    sent = [{"path": path, "content": content} for path, content in files.items()]
    session.execute(command=INSTALL, files=sent, timeout=SECONDS).done()

    checked = session.command("bunx tsc --project . --pretty false", timeout=SECONDS)
    assert (checked["exitCode"], checked["stdout"].count("error TS")) == (1, 1), checked
    assert checked["stdout"].startswith(f"{path}({line - 1},7): error TS2322: ")
    ran = session.command("bun src/main.ts")
    assert (ran["exitCode"], f"/{path}:{line}:" in ran["stderr"]) == (1, True), ran
    assert "in the middle" in ran["stderr"]
    tested = session.command("bun test", timeout=60)
    assert (tested["exitCode"], f" {project.STEPS * 7} pass" in tested["stderr"]) == (1, True), tested["stderr"][-2000:]


def test_a_project_comes_as_an_archive_is_searched_and_its_build_leaves_as_one(
    session: Session, tmp_path: Path
) -> None:
    files = project.files()
    where = {"sessionId": session.id, "path": "app"}
    packed = {"Content-Type": "application/gzip"}
    sent = session.client.call("PUT", "/files/archive", query=where, body=_packed(files), headers=packed).done()
    assert sent["entries"] == len(files)

    query = {**where, "glob": "src/**/step3.ts", "query": r"class \w+OfArea\d"}
    found = session.client.call("GET", "/files/search", query=query).done()
    assert not found["truncated"]
    paths = [f"app/{project.step_path(area, 3)}" for area in range(project.AREAS)]
    assert [match["path"] for match in found["matches"]] == paths
    for match in found["matches"]:
        content = files[match["path"].removeprefix("app/")]
        ((start, end),) = match["ranges"]
        assert content.splitlines()[match["line"] - 1] == match["text"]
        assert match["text"][start:end] == f"class Step3OfArea{match['path'].split('/area')[1][0]}"

    move = {"sessionId": session.id, "from": "app", "to": "moved/here"}
    session.client.call("POST", "/files/move", json_body=move).done()
    session.output(BUILD, workingDir="moved/here")
    built = session.client.call("GET", "/files/archive", query={"sessionId": session.id, "path": "out"})
    assert built.status == 200, built.shown()
    with tarfile.open(fileobj=io.BytesIO(built.body)) as archive:
        archive.extractall(tmp_path, filter="data")
    bun = next(IMAGES.glob("img-*/usr/local/bin/bun"))
    assert subprocess.check_output([bun, tmp_path / "main.js"], text=True) == PRINTED


def _packed(files: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content.encode())
            archive.addfile(entry, io.BytesIO(content.encode()))
    return held.getvalue()
