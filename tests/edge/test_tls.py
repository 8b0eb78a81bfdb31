"""With a certificate the port uses TLS, and HTTP/2 for clients that support it."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from buntime_sdk import AsyncBuntime, AsyncSession, ConnectionFailed

from buntime.config import BadSetting, Config, from_environment
from buntime.edge import process
from tests.edge.rig import HOST, FakeSession, Rig, control_plane, edge, read_message

DOMAIN = "previews.test"
PREVIEW = HOST.replace("localhost", DOMAIN)


def make_certificate(cert: Path, key: Path) -> None:
    """Makes a certificate for the domain and its subdomains. Only the test trusts it."""
    names = f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN}"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={DOMAIN}", "-addext", names, "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture
def secured(config: Config, tmp_path: Path) -> Config:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate(cert, key)
    return replace(config, domain=DOMAIN, tls_cert=cert, tls_key=key)


@pytest.fixture
async def rig(secured: Config) -> AsyncIterator[Rig]:
    async with edge(secured) as opened, control_plane(opened):
        yield opened


def trusting(config: Config) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(config.tls_cert))


async def dial(
    rig: Rig, context: ssl.SSLContext, name: str = PREVIEW
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", rig.config.port, ssl=context, server_hostname=name)


@pytest.mark.parametrize(("name", "is_trusted"), [(PREVIEW, True), (f"{PREVIEW}.elsewhere.test", False)])
async def test_the_sdk_checks_the_certificate_for_the_previews_own_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, name: str, is_trusted: bool
) -> None:
    await rig.open_to(FakeSession())
    monkeypatch.setenv("SSL_CERT_FILE", str(rig.config.tls_cert))
    async with AsyncBuntime("btk_a", f"https://127.0.0.1:{rig.config.port}", max_retries=0) as client:
        told = {"previewUrl": f"https://{name}", "preview": {"visibility": "public", "ports": [8080]}}
        session = AsyncSession(client.sessions._calls, "ses_1", told)
        if is_trusted:
            assert (await session.fetch("/p")).status_code == 200
        else:
            with pytest.raises(ConnectionFailed, match="certificate"):
                await session.fetch("/p")


async def test_a_preview_is_served_with_the_certificate_of_the_domain(rig: Rig) -> None:
    session = FakeSession()
    await rig.open_to(session)
    reader, writer = await dial(rig, trusting(rig.config))
    writer.write(f"GET /p HTTP/1.1\r\nHost: {PREVIEW}\r\n\r\n".encode())
    answer = await read_message(reader)
    assert answer is not None
    assert answer.status == 200
    assert session.requests[0].header("X-Forwarded-Proto") == "https"
    writer.close()


async def test_http2_reaches_the_session_as_http1(rig: Rig) -> None:
    session = FakeSession(lambda _: b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Domain=x\r\nContent-Length: 2\r\n\r\nok")
    await rig.open_to(session)
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sSi", "--http2", "--cacert", str(rig.config.tls_cert), "--max-time", "10",
        "--resolve", f"{PREVIEW}:{rig.config.port}:127.0.0.1", "-H", "Cookie: a=1", "-d", "12345",
        "-H", "Cookie: __buntime_preview=bpt_1", f"https://{PREVIEW}:{rig.config.port}/p",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await curl.communicate()
    head, _, body = out.partition(b"\r\n\r\n")
    assert (head.split()[:2], body) == ([b"HTTP/2", b"200"], b"ok")
    assert b"set-cookie: a=1\r\n" in head + b"\r\n"
    [request] = session.requests
    assert (request.line, request.body) == ("POST /p HTTP/1.1", b"12345")
    assert (request.header("Host"), request.all("Cookie")) == (f"{PREVIEW}:{rig.config.port}", ["a=1"])


async def test_an_answer_that_is_not_http_becomes_a_page_over_http2_too(rig: Rig) -> None:
    await rig.open_to(FakeSession(lambda _: b"nonsense\r\n\r\n"))
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sSi", "--http2", "--cacert", str(rig.config.tls_cert), "--max-time", "10",
        "--resolve", f"{PREVIEW}:{rig.config.port}:127.0.0.1", f"https://{PREVIEW}:{rig.config.port}/",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await curl.communicate()
    assert out.startswith(b"HTTP/2 502")
    assert b"not valid HTTP" in out


async def test_old_versions_of_tls_are_refused(rig: Rig) -> None:
    context = trusting(rig.config)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        await dial(rig, context)


async def test_http_is_redirected_to_https_for_previews_and_refused_for_the_api(rig: Rig) -> None:
    answer = await rig.get("/p?q", host=f"{PREVIEW}:{rig.config.port}")
    assert (answer.status, answer.header("Location")) == (308, f"https://{PREVIEW}:{rig.config.port}/p?q")
    refused = await rig.get("/sessions", host=f"{DOMAIN}:{rig.config.port}", Authorization="Bearer btk_x")
    assert refused.status == 400
    assert b"requires HTTPS" in refused.body


async def test_each_host_on_a_shared_connection_needs_its_own_permission(rig: Rig) -> None:
    await rig.open_to(FakeSession())
    reader, writer = await dial(rig, trusting(rig.config))
    for host in (PREVIEW, f"ses-other.{DOMAIN}"):
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert await read_message(reader) is not None
    writer.close()
    assert [question.header("X-Preview-Host") for question in rig.asked()] == [PREVIEW, f"ses-other.{DOMAIN}"]


async def served(rig: Rig) -> bytes:
    """Returns the certificate that the edge serves now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await dial(rig, context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(certificate)


async def test_a_renewed_certificate_takes_effect(rig: Rig) -> None:
    assert rig.config.tls_cert
    assert rig.config.tls_key
    before = await served(rig)
    files = (rig.config.tls_cert, rig.config.tls_key)
    watching = asyncio.create_task(process.take_up_renewals(files, rig.config.run_dir / "edge", seconds=0.05))
    await asyncio.sleep(0.1)
    make_certificate(*files)
    try:
        async with asyncio.timeout(10):
            while await served(rig) == before:  # noqa: ASYNC110 -- there is no event to wait for
                await asyncio.sleep(0.05)
    finally:
        watching.cancel()


async def test_an_unusable_certificate_is_explained_in_a_sentence(secured: Config, tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    with pytest.raises(process.EdgeFailed, match=r"cert\.pem"):
        async with edge(secured):
            pass


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"BUNTIME_TLS_CERT": "/c", "BUNTIME_DOMAIN": "x.test"}, "BUNTIME_TLS_KEY"),
        ({"BUNTIME_TLS_KEY": "/k", "BUNTIME_DOMAIN": "x.test"}, "BUNTIME_TLS_CERT"),
        ({"BUNTIME_TLS_CERT": "/c", "BUNTIME_TLS_KEY": "/k"}, "BUNTIME_DOMAIN"),
    ],
)
def test_a_certificate_needs_its_key_and_a_domain(environ: dict[str, str], said: str) -> None:
    with pytest.raises(BadSetting, match=said):
        from_environment(environ)
