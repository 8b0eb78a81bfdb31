from pathlib import Path

import pytest

from buntime.config import BadSetting, Config, from_environment, require_store_for_peers


def test_an_empty_environment_gives_the_defaults() -> None:
    assert from_environment({}) == Config()
    assert from_environment({"PATH": "/bin", "HOME": "/root"}) == Config()


def test_settings_are_read_by_their_kind() -> None:
    config = from_environment({"BUNTIME_PORT": "9000", "BUNTIME_HOST": "0.0.0.0", "BUNTIME_DATA_DIR": "/srv/bt"})
    assert (config.port, config.host, config.data_dir) == (9000, "0.0.0.0", Path("/srv/bt"))


def test_origins_are_separated_by_commas() -> None:
    config = from_environment({"BUNTIME_CORS_ORIGINS": "https://app.example.com, http://localhost:5173"})
    assert config.origins == ("https://app.example.com", "http://localhost:5173")
    assert from_environment({}).origins == ()


def test_a_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = from_environment({"BUNTIME_DATA_DIR": "here", "BUNTIME_PLANS": "plans.toml"})
    assert (config.data_dir, config.plans) == (tmp_path / "here", tmp_path / "plans.toml")


def test_variables_of_clients_are_skipped() -> None:
    assert from_environment({"BUNTIME_URL": "http://x", "BUNTIME_API_KEY": "btk_x"}) == Config()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BUNTIME_PROT", "8000"),
        ("BUNTIME_PORT", "eight"),
        ("BUNTIME_PORT", "0"),
        ("BUNTIME_PORT", "65536"),
        ("BUNTIME_CORS_ORIGINS", "https://app.example.com/"),
        ("BUNTIME_CORS_ORIGINS", "https://app.example.com,example.com"),
        ("BUNTIME_CORS_ORIGINS", "null"),
        ("BUNTIME_POOL_SIZE", "-2"),
        ("BUNTIME_POOL_PREPARED", "-2"),
        ("BUNTIME_KEEP_SUSPENDED", "2"),
        ("BUNTIME_OWN_WATCHDOG", "2"),
        ("BUNTIME_SANDBOX_ADDRESSES", "0"),
        ("BUNTIME_VOLUMES_GB", "-1"),
        ("BUNTIME_RESERVE_GB", "-1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(BadSetting, match=name):
        from_environment({name: text})


STORE = {"BUNTIME_STORE": "postgresql://buntime@db.example.com/buntime"}


@pytest.mark.parametrize("peer", ["10.1.0.7:9443", "[2001:db8::1]:8443"])
def test_other_hosts_reach_this_one_at_an_address_of_its_own(peer: str) -> None:
    config = from_environment({**STORE, "BUNTIME_PEER": peer})
    assert (config.peer, config.peer_port) == (peer, int(peer[-4:]))
    assert from_environment(STORE).peer_port == 8443


@pytest.mark.parametrize("peer", ["10.1.0.7", "10.1.0.7:0", "10.1.0.7:65536", "db.example.com:8443", ":8443"])
def test_where_other_hosts_reach_this_one_is_an_address_and_a_port(peer: str) -> None:
    with pytest.raises(BadSetting, match="BUNTIME_PEER must be ADDRESS:PORT"):
        from_environment({**STORE, "BUNTIME_PEER": peer})


@pytest.mark.parametrize("peer", ["0.0.0.0:8443", "[::]:8443", "224.0.0.1:8443"])
def test_other_hosts_cannot_reach_an_address_that_stands_for_all(peer: str) -> None:
    with pytest.raises(BadSetting, match=r"other hosts cannot reach .*Give the one address"):
        from_environment({**STORE, "BUNTIME_PEER": peer})


def test_a_host_alone_has_no_address_for_others() -> None:
    with pytest.raises(BadSetting, match=r"BUNTIME_PEER is for hosts of a fleet.*BUNTIME_STORE=postgresql"):
        require_store_for_peers(from_environment({"BUNTIME_PEER": "10.1.0.7:8443"}))
    require_store_for_peers(from_environment({**STORE, "BUNTIME_PEER": "10.1.0.7:8443"}))
    require_store_for_peers(Config())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadSetting, match=r"BUNTIME_PROT is not a setting\. Known: .*BUNTIME_PORT"):
        from_environment({"BUNTIME_PROT": "1"})


def test_an_installation_is_named_by_its_directory_wherever_it_is_seen_from(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    one, same, other = (Config(data_dir=tmp_path / name).instance for name in ("real", "link", "other"))
    assert one == same != other
    assert len(one) == 4
    assert one.isascii()
    assert one.isalnum()
    assert one.islower() or one.isdigit()


def test_images_are_in_the_data_directory_unless_shared() -> None:
    assert Config(data_dir=Path("/d")).images == Path("/d/images")
    assert Config(data_dir=Path("/d"), images_dir=Path("/shared")).images == Path("/shared")


def test_a_log_level_is_one_of_four() -> None:
    assert from_environment({"BUNTIME_LOG_LEVEL": "WARNING"}).log_level == "WARNING"
    with pytest.raises(BadSetting, match="must be debug, info, warning or error, not 'verbose'"):
        from_environment({"BUNTIME_LOG_LEVEL": "verbose"})
