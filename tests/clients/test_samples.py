"""The samples of `/docs` run on a real server, in all three languages."""

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.sandboxes.kernel.image import ensure_image
from buntime.web.app import OPERATIONS
from buntime.web.examples import CONTEXT, DELIVERY, IMAGE, KEY, PROCESS, SERVICE, SESSION, SNAPSHOT, TOKEN, WEBHOOK
from buntime.web.operation import Operation
from buntime.web.samples import samples_of
from tests.acceptance.client import Client, Session
from tests.acceptance.server import IMAGES, Server
from tests.acceptance.traces import lose_volume
from tests.clients import forking_python

pytestmark = pytest.mark.sandbox

SDK = Path(__file__).parents[2] / "sdk/typescript"
PATIENCE = 120.0  # seconds; a guard against a hang
SERVER = 'Bun.serve({ port: 8080, fetch: () => new Response("Hello") });\n'
LAST = ("deleteSession",)  # what needs the session runs before
CUT = 28  # curl's exit status when --max-time ends it
NOT_RUN = ("getMetrics", "listHosts")  # they need a key of the operator
RUN = [operation for operation in OPERATIONS if operation.name not in (*NOT_RUN, *LAST)]
RUN += [operation for operation in OPERATIONS if operation.name in LAST]
ENDLESS = ("watchFiles", "terminal")  # curl does not end by itself


@dataclass(frozen=True)
class Prepared:
    """A session with everything in it that the samples use."""

    session: Session
    directory: Path
    environment: Mapping[str, str]
    config: Config

    def filled(self, operation: Operation, program: str) -> str:
        """The program with ids that exist, in place of those of the documentation."""
        call, own = self.session.client.call, {"sessionId": self.session.id}
        found = {SESSION: self.session.id}
        if PROCESS in program:
            found[PROCESS] = call("POST", "/processes/start", json_body={**own, "command": "cat"}).done()["processId"]
        if CONTEXT in program:
            found[CONTEXT] = call("POST", "/contexts/create", json_body=own).done()["contextId"]
        if TOKEN in program:
            found[TOKEN] = call("POST", f"/sessions/{self.session.id}/preview-token").done()["token"]
        if SNAPSHOT in program:
            found[SNAPSHOT] = call("POST", f"/sessions/{self.session.id}/snapshots").done()["snapshotId"]
        if KEY in program:
            found[KEY] = call("POST", "/keys/create").done()["keyId"]
        if operation.tag == "Services":
            declared = [{"name": SERVICE, "command": "exec sleep 1000"}]
            call("PATCH", f"/sessions/{self.session.id}", json_body={"services": declared}).done()
        if WEBHOOK in program:
            hook = call("POST", "/webhooks/create", json_body={"url": "https://hooks.invalid"}).done()["webhookId"]
            found[WEBHOOK] = hook
            told = call("GET", f"/webhooks/{hook}/deliveries").done()["deliveries"]
            found[DELIVERY] = told[0]["deliveryId"]
        if operation.name == "deleteImage":
            call("POST", "/images/create", json_body={**own, "name": IMAGE}).done()
        if operation.name == "recoverSession":
            call("POST", f"/sessions/{self.session.id}/sleep", json_body={"depth": "deep-sleep"}).done()
            call("POST", f"/sessions/{self.session.id}/wake").done()
            lose_volume(self.config, self.session.id)
        for example, real in found.items():
            program = program.replace(example, real)
        return program

    def prepare(self) -> None:
        call = self.session.client.call
        for hook in call("GET", "/webhooks").done()["webhooks"]:  # an account has few
            call("DELETE", f"/webhooks/{hook['webhookId']}").done()
        for path, content in (("src/index.ts", "// TODO\n"), ("src/old/a", "a"), ("server.ts", SERVER)):
            self.session.write(path, content).done()
        self.session.write("data/photos.zip", "zip").done()
        self.session.output("pkill -f '[s]erver.ts' || true")

    def run(self, command: list[str | Path]) -> str:
        done = subprocess.run(
            command, cwd=self.directory, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return server.new_client("enterprise")


@pytest.fixture(scope="module")
def bun() -> Path:
    return asyncio.run(ensure_image(IMAGES, print)).path / "usr/local/bin/bun"


@pytest.fixture
def prepared(server: Server, client: Client, tmp_path: Path) -> Iterator[Prepared]:
    session = client.open()
    (tmp_path / "photos.zip").write_text("zip")
    (tmp_path / "local-src").mkdir()
    (tmp_path / "local-src/a.ts").write_text("1")
    with tarfile.open(tmp_path / "src.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "local-src", "src")
    package = tmp_path / "node_modules/@buntime/sdk"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "@buntime/sdk", "type": "module", "exports": "./src/index.ts"}')
    (package / "src").symlink_to(SDK / "src")
    assert client.key
    environment = {"BUNTIME_URL": f"http://127.0.0.1:{client.port}", "BUNTIME_API_KEY": client.key}
    yield Prepared(session, tmp_path, environment, server.config)
    for one in client.call("GET", "/sessions", query={"limit": "100"}).done()["sessions"]:
        client.call("DELETE", f"/sessions/{one['sessionId']}")


def programs(operation: Operation, language: str) -> str:
    return next(sample["source"] for sample in samples_of(operation) if sample["lang"] == language)


def test_every_sample_in_python_runs(prepared: Prepared) -> None:
    forking = subprocess.Popen(
        [sys.executable, "-W", "error", forking_python.__file__], cwd=prepared.directory,
        env={**os.environ, **prepared.environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with forking:
        assert forking.stdin
        assert forking.stdout
        for operation in RUN:
            prepared.prepare()
            program = prepared.directory / f"{operation.name}.py"
            program.write_text(prepared.filled(operation, programs(operation, "python")))
            print(program, file=forking.stdin, flush=True)
            ended = forking.stdout.readline()
            assert ended == "0\n", program.with_name(program.name + forking_python.SAID).read_text()
        forking.stdin.close()
        assert forking.wait(PATIENCE) == 0


def test_every_sample_in_typescript_runs(prepared: Prepared, bun: Path) -> None:
    for operation in RUN:
        prepared.prepare()
        program = prepared.directory / f"{operation.name}.ts"
        program.write_text(prepared.filled(operation, programs(operation, "typescript")))
        prepared.run([bun, program])


def test_every_sample_for_curl_succeeds(prepared: Prepared) -> None:
    for operation in RUN:
        prepared.prepare()
        command = prepared.filled(operation, programs(operation, "shell"))
        if operation.name in ENDLESS:
            command += f" --max-time 2 || test $? = {CUT}"
        elif operation.name not in ("readContent", "readArchive"):
            command += " --fail-with-body"
        prepared.run(["bash", "-c", command])
