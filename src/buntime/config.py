"""The settings, read once from BUNTIME_* variables. A setting exists only if an operator can have an opinion on it."""

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ORIGIN = re.compile(r"\*|https?://[a-z0-9.\-\[\]:]+")  # as browsers send it: lower case, no path
RESOLV_CONF = Path("/etc/resolv.conf")
SHARED_RUN_DIR = Path("/run/buntime")  # shared by all servers of this host
CLIENT_NAMES = ("BUNTIME_URL", "BUNTIME_API_KEY")
PEER_PORT = 8443  # by default
LOG_LEVELS = ("debug", "info", "warning", "error")


type Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    data_dir: Path = Path("/var/lib/buntime")  # has everything that the server keeps
    host: str = "127.0.0.1"  # the edge listens on this address
    port: int = 8000
    trusted_proxies: str = (
        ""  # networks of proxies before the edge, separated by commas; they tell the client's address
    )
    domain: str = ""  # of previews; "" means localhost:PORT over HTTP
    tls_cert: Path | None = None  # for the domain and *.domain, with its chain; makes the port speak TLS
    tls_key: Path | None = None
    cors_origins: str = ""  # origins of web pages that may call the API, separated by commas; "*": all
    pool_size: int = -1  # parked sandboxes; -1: by the host's memory (see `sandboxes.opening`)
    pool_prepared: int = -1  # of those, the ones with a started Bun; -1: by the host's memory
    images_dir: Path | None = None  # None: data_dir/images; may be shared by servers of one host
    image_gb: int = 10  # most that an image which an operator adds may hold
    volumes_gb: int = 0  # size of the volumes' file system when it is made; 0: 80 % of the free disk
    reserve_gb: int = 2  # host disk to keep free; with less, creates are refused
    memory_reserve_mb: int = 512  # host memory to keep free; with less, creates are refused
    cache_gb: int = -1  # volumes of sessions in deep sleep that stay on the host; -1: half of their file system
    archive: str = ""  # saves those volumes: a directory, or s3://bucket/prefix; "": data_dir/archive
    master_key_file: Path | None = None  # wraps the keys of saved volumes; None: data_dir/master.key, made at first
    store: str = field(
        default="", repr=False
    )  # postgresql://…, which may have a password; "": a SQLite file in data_dir
    peer: str = ""  # address:port for the other hosts of the store; "": where this host reaches the database, port 8443
    own_watchdog: int = 1  # 0: something else runs `buntime watchdog`, such as a unit of its own
    network: str = "10.213.0.0/16"  # addresses for sandboxes; each server takes a part
    resolv_conf: Path = RESOLV_CONF  # lists the name servers to ask for sessions
    sandbox_addresses: int = 4094  # addresses that this server takes, rounded up: see sandboxes/kernel/host.py
    runtime: str = "crun"  # OCI runtime: a name or path of a program with crun's commands
    webhook_networks: str = ""  # networks, separated by commas, whose private addresses webhooks may reach
    plans: Path | None = None  # TOML with more plans
    log_level: str = "info"
    idle_after: int = 300  # seconds without a request after which a session is suspended; 0: never
    deep_sleep_after: int = 1800  # seconds without a request after which its sandbox is given back; 0: never
    keep_suspended: int = 0  # 1: sessions stay suspended then, with their processes, as long as the host has room
    tick_ms: int = 1000  # between two ticks of the keeper

    @property
    def instance(self) -> str:
        """4 characters that identify this data directory in the names of interfaces, cgroups and tables."""
        digest = hashlib.sha256(os.fsencode(self.data_dir.resolve())).digest()
        alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
        return "".join(alphabet[byte % 36] for byte in digest[:4])

    @property
    def images(self) -> Path:
        return self.images_dir or self.data_dir / "images"

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(origin.strip() for origin in self.cors_origins.split(",")) if self.cors_origins else ()

    @property
    def proxies(self) -> tuple[Subnet, ...]:
        """Raises ValueError, which `from_environment` rules out."""
        texts = self.trusted_proxies.split(",") if self.trusted_proxies else ()
        return tuple(_subnet(text.strip()) for text in texts)

    @property
    def receivers(self) -> tuple[Subnet, ...]:
        """Where webhooks may go beside public addresses. Raises ValueError, which `from_environment` rules out."""
        texts = self.webhook_networks.split(",") if self.webhook_networks else ()
        return tuple(_subnet(text.strip()) for text in texts)

    @property
    def run_dir(self) -> Path:
        """Pid files and generated configuration."""
        return self.data_dir / "run"

    @property
    def api_socket(self) -> Path:
        """The API listens here for the edge, whose workers may not enter the data directory."""
        return SHARED_RUN_DIR / f"{self.instance}.sock"

    @property
    def edge_socket(self) -> Path:
        """The edge asks about previews here. No client's request gets here."""
        return SHARED_RUN_DIR / f"{self.instance}-edge.sock"

    @property
    def peer_port(self) -> int:
        """Where other hosts of a fleet reach this one. Raises ValueError, which `from_environment` rules out."""
        return int(self.peer.rpartition(":")[2]) if self.peer else PEER_PORT

    @property
    def bodies_dir(self) -> Path:
        """The edge of a fleet's host keeps large bodies here. Its workers may not enter the data directory."""
        return Path("/var/tmp") / f"buntime-{self.instance}-bodies"

    @property
    def shared_lock(self) -> Path:
        """Held by the server, or by a purge, of this data directory."""
        return SHARED_RUN_DIR / f"{self.instance}.lock"

    @property
    def lease_file(self) -> Path:
        """Where the server of a fleet tells its watchdog until when it may act."""
        return SHARED_RUN_DIR / f"{self.instance}.lease"

    @property
    def host_id_file(self) -> Path:
        """What a host of a fleet is called. Made by its first server."""
        return self.data_dir / "host-id"

    @property
    def metrics_socket(self) -> Path:
        """Root alone reads the numbers for Prometheus here."""
        return SHARED_RUN_DIR / f"{self.instance}-metrics.sock"


def _subnet(text: str) -> Subnet:
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    return ipaddress.ip_network(text)


class BadSetting(Exception):
    """The server cannot start with these settings. The message says which one is wrong, and why."""


def from_environment(environ: Mapping[str, str]) -> Config:
    """Raises BadSetting. An unknown BUNTIME_* name is an error too, so that you notice a typing mistake.

    Skips BUNTIME_URL and BUNTIME_API_KEY, which belong to clients.
    """
    config = Config(**_values(environ))  # type: ignore[arg-type]
    _check_numbers(config)
    _check_log_level(config)
    _check_networks(config)
    _check_receivers(config)
    _check_certificate(config)
    _check_store(config)
    _check_peer(config)
    return config


def _values(environ: Mapping[str, str]) -> dict[str, object]:
    """By the names of `Config`'s fields."""
    known = {f.upper(): f for f in Config.__dataclass_fields__}
    values: dict[str, object] = {}
    for name, text in environ.items():
        if not name.startswith("BUNTIME_") or name in CLIENT_NAMES:
            continue
        setting = known.get(name.removeprefix("BUNTIME_"))
        if setting is None:
            raise BadSetting(f"{name} is not a setting. Known: " + ", ".join(f"BUNTIME_{k}" for k in known))
        if not text:
            raise BadSetting(f"{name} is empty; unset it for its default.")
        kind = Config.__dataclass_fields__[setting].type
        try:
            values[setting] = int(text) if kind is int else text if kind is str else Path(text).resolve()
        except ValueError:
            raise BadSetting(f"{name} must be a whole number, not {text!r}.") from None
    return values


def _check_log_level(config: Config) -> None:
    if config.log_level.lower() not in LOG_LEVELS:
        *others, last = LOG_LEVELS
        raise BadSetting(f"BUNTIME_LOG_LEVEL must be {', '.join(others)} or {last}, not {config.log_level!r}.")


def _check_numbers(config: Config) -> None:
    if not 1 <= config.port <= 65535:
        raise BadSetting("BUNTIME_PORT must be 1 to 65535.")
    if config.sandbox_addresses < 1:
        raise BadSetting("BUNTIME_SANDBOX_ADDRESSES must be at least 1.")
    if config.cache_gb < -1:
        raise BadSetting("BUNTIME_CACHE_GB must not be negative (-1: half of the volumes' file system).")
    if config.pool_size < -1:
        raise BadSetting("BUNTIME_POOL_SIZE must not be negative (-1: by the host's memory).")
    if config.pool_prepared < -1:
        raise BadSetting("BUNTIME_POOL_PREPARED must not be negative (-1: by the host's memory).")
    for name in ("volumes_gb", "reserve_gb", "memory_reserve_mb", "idle_after", "deep_sleep_after"):
        if getattr(config, name) < 0:
            raise BadSetting(f"BUNTIME_{name.upper()} must not be negative.")
    if config.image_gb < 1:
        raise BadSetting("BUNTIME_IMAGE_GB must be at least 1.")
    if config.keep_suspended not in (0, 1):
        raise BadSetting("BUNTIME_KEEP_SUSPENDED must be 0 or 1.")
    if config.own_watchdog not in (0, 1):
        raise BadSetting("BUNTIME_OWN_WATCHDOG must be 0 or 1.")
    if config.tick_ms < 10:
        raise BadSetting("BUNTIME_TICK_MS must be at least 10.")


def _check_networks(config: Config) -> None:
    if wrong := [origin for origin in config.origins if not ORIGIN.fullmatch(origin)]:
        raise BadSetting(
            f"BUNTIME_CORS_ORIGINS: {wrong[0]!r} is neither an origin, such as https://app.example.com, nor *."
        )
    try:
        _ = config.proxies
    except ValueError as wrong:
        raise BadSetting(
            f"BUNTIME_TRUSTED_PROXIES={config.trusted_proxies}: {wrong}. Give networks such as 192.0.2.0/24 or "
            "2001:db8::1, separated by commas."
        ) from None


def _check_receivers(config: Config) -> None:
    try:
        _ = config.receivers
    except ValueError as wrong:
        raise BadSetting(
            f"BUNTIME_WEBHOOK_NETWORKS={config.webhook_networks}: {wrong}. Give networks such as 10.1.0.0/16 or "
            "127.0.0.1, separated by commas."
        ) from None


def _check_store(config: Config) -> None:
    if config.store and not config.store.startswith(("postgresql://", "postgres://")):
        raise BadSetting("BUNTIME_STORE must begin with postgresql://.")


def _check_peer(config: Config) -> None:
    if config.peer:
        _check_peer_address(config)
    if (config.peer or config.store) and config.peer_port == config.port:
        raise BadSetting(
            f"Clients and other hosts cannot both use port {config.port}. Set BUNTIME_PORT, or BUNTIME_PEER to "
            "ADDRESS:PORT, to another one."
        )


def _check_peer_address(config: Config) -> None:
    host, _, port = config.peer.rpartition(":")
    try:
        address, number = ipaddress.ip_address(host.strip("[]")), int(port)
    except ValueError:
        address, number = None, 0
    if address is None or not 1 <= number <= 65535:
        raise BadSetting(f"BUNTIME_PEER must be ADDRESS:PORT, such as 10.1.0.7:8443, not {config.peer}.")
    if address.is_unspecified or address.is_multicast:
        raise BadSetting(
            f"BUNTIME_PEER={config.peer}: other hosts cannot reach {address}. Give the one address by which they reach "
            "this host."
        )


def require_store_for_peers(config: Config) -> None:
    """For a server. Its watchdog knows the address, and not the database. Raises BadSetting."""
    if config.peer and not config.store:
        raise BadSetting(
            "BUNTIME_PEER is for hosts of a fleet, which share a database: set BUNTIME_STORE=postgresql://… too."
        )


def _check_certificate(config: Config) -> None:
    if (config.tls_cert is None) != (config.tls_key is None):
        raise BadSetting("BUNTIME_TLS_CERT and BUNTIME_TLS_KEY must be set together.")
    if config.tls_cert and not config.domain:
        raise BadSetting("BUNTIME_TLS_CERT needs BUNTIME_DOMAIN, the domain of the certificate.")
