"""Certificates of hosts: only the master key makes them."""

import datetime

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from buntime.fleet.peer_keys import BEFORE_DAYS, VALID_DAYS, issue
from buntime.lifecycle.sealing import Vault

HOST = "hst_abcdefghij12345678"
NOW = 1_800_000_000.0
SECRET = Vault(bytes(32)).peer_secret


def authority(secret: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issue(secret, HOST, NOW).authority)


def test_each_host_makes_the_same_authority_of_the_same_master_key() -> None:
    assert issue(SECRET, HOST, NOW).authority == issue(SECRET, "hst_another", NOW + 1e6).authority
    assert issue(SECRET, HOST, NOW).key != issue(SECRET, HOST, NOW).key


def test_another_master_key_makes_another_authority() -> None:
    other = Vault(bytes([1]) * 32).peer_secret
    certificate = x509.load_pem_x509_certificate(issue(other, HOST, NOW).certificate)
    with pytest.raises(InvalidSignature):
        certificate.verify_directly_issued_by(authority(SECRET))


def test_a_certificate_has_the_hosts_id_and_ends() -> None:
    certificate = x509.load_pem_x509_certificate(issue(SECRET, HOST, NOW).certificate)
    certificate.verify_directly_issued_by(authority(SECRET))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [HOST]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    now = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    assert now - certificate.not_valid_before_utc == datetime.timedelta(days=BEFORE_DAYS)
    assert certificate.not_valid_after_utc - now == datetime.timedelta(days=VALID_DAYS)
