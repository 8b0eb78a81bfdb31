"""Certificates by which the hosts of a fleet know each other. Pure but for the clock and randomness that it is given.

The installation's master key makes the authority's key, so every host that has it makes the same authority, and nobody
else can. Each host issues its own certificate with it. There is nothing to hand out, and nothing to revoke: who has the
master key is a member, and a new master key makes a new authority.
"""

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "buntime hosts"
SERIAL = 1  # of the authority's certificate, which is the same bytes on every host
BEGINNING = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
VALID_DAYS = 90  # of a host's certificate; the server issues the next one after half of them (see `edge.peers`)
BEFORE_DAYS = 1  # the clocks of hosts may differ by this
USE = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """All as PEM."""

    authority: bytes  # who signs certificates of hosts
    certificate: bytes  # this host's own
    key: bytes  # of that certificate


def issue(secret: bytes, host: str, now: float, days: int = VALID_DAYS) -> PeerKeys:
    """A new certificate for the host with this id.

    `secret`: 32 bytes that the master key makes (`Vault.peer_secret`). `now`: Unix seconds.
    """
    signer, key = Ed25519PrivateKey.from_private_bytes(secret), Ed25519PrivateKey.generate()
    authority = _authority(signer)
    began = datetime.datetime.fromtimestamp(int(now), datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(host))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began - datetime.timedelta(days=BEFORE_DAYS))
        .not_valid_after(began + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(USE), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, None)
    )
    secret_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return PeerKeys(authority.public_bytes(Encoding.PEM), certificate.public_bytes(Encoding.PEM), secret_pem)


def _authority(signer: Ed25519PrivateKey) -> x509.Certificate:
    """The same bytes for the same secret: Ed25519 signs without chance."""
    return (
        x509.CertificateBuilder()
        .subject_name(_name(AUTHORITY))
        .issuer_name(_name(AUTHORITY))
        .public_key(signer.public_key())
        .serial_number(SERIAL)
        .not_valid_before(BEGINNING)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_signs_certificates(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key()), critical=False)
        .sign(signer, None)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
