"""Deliveries reach no private address, whatever a name says and however it changes."""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.delivery.conftest import sending, soon
from tests.delivery.receiver import receiving
from tests.waiting import eventually

NOT_PUBLIC = "The receiver's address is not public."


class Names:
    """A name server that a test controls."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, name: str, port: int) -> Sequence[str]:
        self.asked.append(name)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "0.0.0.0",
    ],
)
async def test_no_spelling_of_this_host_is_reached(tmp_path: Path, host: str) -> None:
    async with receiving() as receiver, sending(tmp_path, networks=()) as sender:
        webhook = await sender.webhook(receiver.url(host))
        await sender.happens()
        assert (await sender.delivery(webhook)).failure in (NOT_PUBLIC, "The receiver's name cannot be resolved.")
        assert receiver.got == []


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "127.0.0.1"], ["fd00::1"], []]
)
async def test_a_name_with_any_private_address_is_refused(tmp_path: Path, addresses: list[str]) -> None:
    names = Names(addresses)
    async with receiving() as receiver, sending(tmp_path, networks=(), resolve=names.resolve) as sender:
        webhook = await sender.webhook(receiver.url("hooks.test"))
        await sender.happens()
        assert (await sender.delivery(webhook)).failure == NOT_PUBLIC
        assert receiver.got == []


async def test_the_checked_address_is_the_one_that_is_connected_to(tmp_path: Path) -> None:
    """127.0.0.2 stands for a public address: it is allowed, and 127.0.0.1 is not."""
    names = Names(["127.0.0.2"], ["127.0.0.1"])
    networks = (ip_network("127.0.0.2/32"),)
    async with receiving() as receiver, sending(tmp_path, networks, resolve=names.resolve) as sender:
        webhook = await sender.webhook(receiver.url("hooks.test"))
        await sender.happens()
        failure = (await sender.delivery(webhook)).failure or ""
        assert failure.startswith("The connection failed")  # nothing listens there, and 127.0.0.1 was not tried
        assert names.asked == ["hooks.test"]
        sender.clock.now += 5
        assert (await sender.delivery(webhook, 2)).failure == NOT_PUBLIC
        assert receiver.got == []


async def test_the_name_stays_in_the_host_header(tmp_path: Path) -> None:
    names = Names(["127.0.0.1"])
    async with receiving() as receiver, sending(tmp_path, resolve=names.resolve) as sender:
        await sender.webhook(receiver.url("hooks.test"))
        await sender.happens()
        await eventually(lambda: receiver.got)
        assert receiver.got[0].headers["Host"] == f"hooks.test:{receiver.port}"


async def test_another_address_of_a_name_is_tried_when_one_refuses(tmp_path: Path) -> None:
    names = Names(["127.0.0.9", "127.0.0.1"])
    async with receiving() as receiver, sending(tmp_path, resolve=names.resolve) as sender:
        await sender.webhook(receiver.url("hooks.test"))
        await sender.happens()
        await eventually(lambda: receiver.got)


async def test_no_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(path=""))
        async with sending(tmp_path) as sender:
            await sender.webhook(receiver.url())
            await sender.happens()
            await eventually(lambda: receiver.got)
            assert proxy.got == []


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "no-such-name.invalid", "a..b"])
async def test_a_name_that_cannot_be_resolved_is_a_failure(tmp_path: Path, name: str) -> None:
    async with sending(tmp_path) as sender:
        webhook = await sender.webhook(f"http://{name}/")
        await sender.happens()
        assert (await sender.delivery(webhook)).failure == "The receiver's name cannot be resolved."


async def test_a_name_server_that_never_answers_delays_no_other(tmp_path: Path) -> None:
    async def resolve(name: str, port: int) -> Sequence[str]:
        if name == "silent.test":
            await asyncio.sleep(3600)
        return ["127.0.0.1"]

    async with receiving() as receiver, sending(tmp_path, resolve=resolve) as sender:
        await sender.webhook(receiver.url("silent.test"))
        await sender.webhook(receiver.url("hooks.test"))
        for number in range(20):
            await sender.happens(f"ses_{number}")
        await eventually(lambda: len(receiver.got) == 20)


def certificate(directory: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for the name, and a client's that trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = directory / "cert.pem", directory / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(public, private)
    client = ssl.create_default_context(cafile=str(public))
    return server, client


async def test_the_certificate_must_be_of_the_name(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "hooks.test")
    names = Names(["127.0.0.1"])
    asked: list[str | None] = []
    server.sni_callback = lambda _, name, __: asked.append(name)
    async with receiving(tls=server) as receiver, sending(tmp_path, trusted=client, resolve=names.resolve) as sender:
        right = await sender.webhook(receiver.url("hooks.test"))
        await sender.happens()
        assert (await sender.delivery(right)).failure is None
        assert asked == ["hooks.test"]
        wrong = await sender.webhook(receiver.url("other.test"))
        await sender.happens()

        async def refused() -> str | None:
            return (await sender.deliveries(wrong))[0].failure

        assert "certificate" in await soon(refused)
        assert len(receiver.got) == 2  # both of the right one
