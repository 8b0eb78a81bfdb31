"""deploy/nginx.conf on a real nginx: what buntime needs arrives unchanged, and at once."""

import asyncio
import io
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.ports import free_port
from tests.waiting import PATIENCE, REST

CHECKOUT = Path(__file__).parents[2]
SAMPLE = (CHECKOUT / "deploy/nginx.conf").read_text()
NGINX = ("/usr/sbin/nginx", "-e", "stderr", "-c")
DOMAIN = "sandbox.example.com"
LIVE = f"/etc/letsencrypt/live/{DOMAIN}"
PREVIEW = f"ses-abc-3000.{DOMAIN}"
MAIN = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  include {directory}/sample.conf;
}}
"""


@dataclass
class Rig:
    """The proxy, a server in the place of buntime, and a client that trusts the proxy's certificate."""

    https: str
    http: str
    client: aiohttp.ClientSession
    go_on: asyncio.Event


async def _echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    return web.json_response(
        {
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "path": request.raw_path,
            "bytes": len(body),
        }
    )


async def _talk(request: web.Request) -> web.StreamResponse:
    channel = web.WebSocketResponse()
    await channel.prepare(request)
    async for message in channel:
        await channel.send_str(f"{message.data} back")
    return channel


def _config(directory: Path, upstream: int, http: int, https: int) -> Path:
    text = SAMPLE.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}").replace(LIVE, str(directory))
    for port, free in (("443 ssl", f"{https} ssl"), ("80", str(http))):
        text = text.replace(f"listen [::]:{port};", "").replace(f"listen {port};", f"listen 127.0.0.1:{free};")
    (directory / "sample.conf").write_text(text)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={DOMAIN}", "-keyout", str(directory / "privkey.pem"), "-out", str(directory / "fullchain.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    main = directory / "main.conf"
    main.write_text(MAIN.format(directory=directory))
    return main


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    go_on, ports = asyncio.Event(), [free_port() for _ in range(3)]

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first")
        await go_on.wait()
        await answer.write(b"last")
        return answer

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.get("/stream", stream), web.get("/talk", _talk), web.route("*", "/{path:.*}", _echo)])
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", ports[0]).start()
        process = await asyncio.create_subprocess_exec(*NGINX, str(_config(tmp_path, *ports)))
        stack.push_async_callback(process.wait)
        stack.callback(process.terminate)
        trust = ssl.create_default_context()
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        client = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)))
        await _until_it_listens(ports[2])
        yield Rig(f"https://127.0.0.1:{ports[2]}", f"http://127.0.0.1:{ports[1]}", client, go_on)


async def _until_it_listens(port: int) -> None:
    for _ in range(int(PATIENCE / REST)):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(REST)
        else:
            writer.close()
            return
    raise AssertionError("nginx does not listen")


def test_nginx_accepts_the_sample_without_a_warning(tmp_path: Path) -> None:
    config = _config(tmp_path, *(free_port() for _ in range(3)))
    tested = subprocess.run([*NGINX, str(config), "-t", "-q"], capture_output=True, text=True, check=False)
    assert (tested.returncode, tested.stderr) == (0, "")


async def test_host_path_and_the_clients_address_arrive_as_they_are(rig: Rig) -> None:
    sent = {"Host": PREVIEW, "X-Forwarded-For": "203.0.113.9", "X-Request-Id": "mine"}
    async with rig.client.get(URL(f"{rig.https}/a%2Fb?q=%20", encoded=True), headers=sent) as answer:
        got = await answer.json()
    assert got["path"] == "/a%2Fb?q=%20"
    assert got["headers"]["host"] == PREVIEW
    assert got["headers"]["x-forwarded-for"] == "127.0.0.1", "what a client claims is left out"
    assert got["headers"]["x-request-id"] == "mine"


async def test_a_large_body_passes(rig: Rig) -> None:
    async with rig.client.put(
        f"{rig.https}/files", data=io.BytesIO(bytes(8 << 20)), headers={"Host": DOMAIN}
    ) as answer:
        assert (await answer.json())["bytes"] == 8 << 20


async def test_output_arrives_before_the_answer_ends(rig: Rig) -> None:
    async with rig.client.get(f"{rig.https}/stream", headers={"Host": DOMAIN}) as answer:
        assert await answer.content.readexactly(5) == b"first"
        rig.go_on.set()
        assert await answer.content.read() == b"last"


async def test_a_websocket_passes(rig: Rig) -> None:
    async with rig.client.ws_connect(f"{rig.https}/talk", headers={"Host": PREVIEW}) as channel:
        await channel.send_str("there and")
        assert await channel.receive_str() == "there and back"


async def test_plain_http_is_sent_on_to_https(rig: Rig) -> None:
    async with rig.client.get(f"{rig.http}/x", headers={"Host": PREVIEW}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, f"https://{PREVIEW}/x")
