"""What a fenced host refuses, as text."""

from buntime.daemon.listening import Listening
from buntime.sandboxes.network.fence_rules import fence_rules


def test_a_fenced_host_answers_neither_clients_nor_other_hosts() -> None:
    rules = fence_rules("abcd", Listening(("192.0.2.7",), 8000, for_hosts=8443))
    for port in ("ip daddr 192.0.2.7 tcp dport 8000", "tcp dport 8443"):
        assert f"{port} meta mark & 0 != @open reject with tcp reset" in rules
    assert "tcp sport 8443 tcp flags & rst == 0 meta mark & 0 != @open drop" in rules


def test_a_host_alone_has_no_other_port() -> None:
    assert "8443" not in fence_rules("abcd", Listening(("192.0.2.7",), 8000))
