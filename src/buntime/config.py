"""The settings, read once from BUNTIME_* variables. One exists only if its user can have an opinion on it."""

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ORIGIN = re.compile(r"\*|https?://[a-z0-9.\-\[\]:]+")  # as browsers send it: lower case, no path
SHARED_RUN_DIR = Path("/run/buntime")  # of all servers of this host: which part of it is whose


type Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    data_dir: Path = Path("/var/lib/buntime")  # everything that is kept lives here
    host: str = "127.0.0.1"  # address that the edge listens on
    port: int = 8000
    trusted_proxies: str = ""  # networks of proxies before the edge, separated by commas: they name the client
    domain: str = ""  # of previews; "" means localhost:PORT over http
    tls_cert: Path | None = None  # for the domain and *.domain, with its chain: then the port speaks TLS
    tls_key: Path | None = None
    cors_origins: str = ""  # of web pages that may call the API, separated by commas; "*" is all
    pool_size: int = -1  # parked sandboxes; -1: by the host's memory (see `sandboxes.opening`)
    images_dir: Path | None = None  # None: data_dir/images; may be shared by servers of one host
    volumes_gb: int = 0  # size of the volumes' file system when it is made; 0: 80 % of the free disk
    reserve_gb: int = 2  # host disk kept free: below it creates are refused
    memory_reserve_mb: int = 512  # host memory kept free: below it creates are refused
    cache_gb: int = -1  # of volumes of deep-asleep sessions that stay on the host; -1: half of their file system
    archive: str = ""  # where they are saved: a directory, or s3://bucket/prefix; "": data_dir/archive
    master_key_file: Path | None = None  # what their keys are wrapped with; None: data_dir/master.key, made at first
    network: str = "10.213.0.0/16"  # the addresses that sandboxes get; each server of a host takes a part of it
    sandbox_addresses: int = 4094  # how many of them this server takes, rounded up: see sandboxes/kernel/host.py
    runtime: str = "crun"  # OCI runtime: a name or path with crun's verbs
    plans: Path | None = None  # TOML with more plans
    log_level: str = "info"
    idle_after: int = 300  # seconds without a request after which a session is suspended; 0: never
    deep_sleep_after: int = 1800  # seconds without a request after which its sandbox is given back; 0: never
    tick_ms: int = 1000  # between looks of the keeper

    @property
    def instance(self) -> str:
        """4 characters that name this installation in interfaces, cgroups and tables."""
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
        """Raises ValueError, for which `from_environment` has looked."""
        texts = self.trusted_proxies.split(",") if self.trusted_proxies else ()
        return tuple(_subnet(text.strip()) for text in texts)

    @property
    def run_dir(self) -> Path:
        """Pid files and generated configuration."""
        return self.data_dir / "run"

    @property
    def api_socket(self) -> Path:
        """Where the control plane listens for the edge, whose workers may not enter the data directory."""
        return SHARED_RUN_DIR / f"{self.instance}.sock"

    @property
    def edge_socket(self) -> Path:
        """Where the control plane answers the edge's questions about previews: no client's request gets there."""
        return SHARED_RUN_DIR / f"{self.instance}-edge.sock"

    @property
    def shared_lock(self) -> Path:
        """Held by the server, or by a purge, of this data directory."""
        return SHARED_RUN_DIR / f"{self.instance}.lock"

    @property
    def metrics_socket(self) -> Path:
        """Where root alone reads the numbers for Prometheus."""
        return SHARED_RUN_DIR / f"{self.instance}-metrics.sock"


def _subnet(text: str) -> Subnet:
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
    return ipaddress.ip_network(text)


class BadSetting(Exception):
    """A BUNTIME_* variable cannot be used; the message says which and why."""


def from_environment(environ: Mapping[str, str]) -> Config:
    """Raises BadSetting. An unknown BUNTIME_* name is an error too, so that a typing mistake is seen.

    BUNTIME_URL and BUNTIME_API_KEY belong to clients and are passed over.
    """
    known = {f.upper(): f for f in Config.__dataclass_fields__}
    values: dict[str, object] = {}
    for name, text in environ.items():
        if not name.startswith("BUNTIME_") or name in ("BUNTIME_URL", "BUNTIME_API_KEY"):
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
    config = Config(**values)  # type: ignore[arg-type]
    if not 1 <= config.port <= 65535:
        raise BadSetting("BUNTIME_PORT must be 1 to 65535.")
    if config.sandbox_addresses < 1:
        raise BadSetting("BUNTIME_SANDBOX_ADDRESSES must be at least 1.")
    if config.cache_gb < -1:
        raise BadSetting("BUNTIME_CACHE_GB must not be negative (-1: half of the volumes' file system).")
    if config.pool_size < -1:
        raise BadSetting("BUNTIME_POOL_SIZE must not be negative (-1: by the host's memory).")
    if wrong := [origin for origin in config.origins if not ORIGIN.fullmatch(origin)]:
        raise BadSetting(
            f"BUNTIME_CORS_ORIGINS: {wrong[0]!r} is no origin, such as https://app.example.com, and not *."
        )
    try:
        _ = config.proxies
    except ValueError as wrong:
        raise BadSetting(
            f"BUNTIME_TRUSTED_PROXIES={config.trusted_proxies}: {wrong}. Give networks such as 192.0.2.0/24 or "
            "2001:db8::1, separated by commas."
        ) from None
    if (config.tls_cert is None) != (config.tls_key is None):
        raise BadSetting("BUNTIME_TLS_CERT and BUNTIME_TLS_KEY are of use together only.")
    if config.tls_cert and not config.domain:
        raise BadSetting("BUNTIME_TLS_CERT needs BUNTIME_DOMAIN, the domain that it is for.")
    for name in ("volumes_gb", "reserve_gb", "memory_reserve_mb", "idle_after", "deep_sleep_after"):
        if getattr(config, name) < 0:
            raise BadSetting(f"BUNTIME_{name.upper()} must not be negative.")
    if config.tick_ms < 10:
        raise BadSetting("BUNTIME_TICK_MS must be at least 10.")
    return config
