"""What the client knows of a session without asking again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from buntime_sdk.from_json import camel, each, from_wire
from buntime_sdk.previews import DEFAULT_PORT, require_port
from buntime_sdk.service_shapes import DeclaredService, ServiceSettings
from buntime_sdk.shapes import (
    NetworkSettings,
    PreviewSettings,
    ResourceLimits,
    SessionState,
    SleepPolicy,
)


class Unchanged(Enum):
    """Marks a setting that stays as it is, which None cannot express."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
DEFAULT_IMAGE = "default"
WAITS = {"idleAfter", "deepSleepAfter", "checkpointEvery"}  # of a sleep policy, which have no default that is known
INHERITED = ("preview", "network", "onWake", "sleepPolicy")  # by a fork, besides its variables and its image


def settings_on_the_wire(**settings: object) -> dict[str, object]:
    """Returns the settings that were given, in their JSON form."""
    return {camel(name): _on_the_wire(name, value) for name, value in settings.items() if value is not UNCHANGED}


def _on_the_wire(name: str, value: object) -> object:
    if isinstance(value, PreviewSettings | NetworkSettings | ResourceLimits | SleepPolicy):
        value = asdict(value)
    if name == "services" and isinstance(value, Sequence):
        return [_service(one) for one in value]
    if name == "sleep_policy" and isinstance(value, Mapping):
        return {camel(field): given for field, given in value.items()}
    return value


def _service(service: Any) -> dict[str, object]:
    fields = asdict(service) if isinstance(service, ServiceSettings) else service
    return {camel(name): value for name, value in fields.items() if value is not None}


def _declared(services: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Services that were asked for, as the server shows them."""
    return [
        {
            "name": one["name"],
            "command": one["command"],
            "port": one.get("port"),
            "workingDir": one.get("workingDir", "/workspace"),
            "envNames": sorted(one.get("env", ())),
            "restart": one.get("restart", "always"),
        }
        for one in services or ()
    ]


def fork_on_the_wire(on_wake: str | Unchanged | None, **settings: object) -> dict[str, object]:
    """Returns the settings of a fork that were given, in their JSON form. For `on_wake`, None is a value too."""
    given = settings_on_the_wire(**{name: value for name, value in settings.items() if value is not None})
    return given if on_wake is UNCHANGED else {**given, "onWake": on_wake}


def as_made(made: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Combines the response of a create with the settings that were asked for.

    Without what depends on a snapshot or on another image.
    """
    told = {
        **_as_new(made, settings),
        "preview": settings.get("preview", {}),
        "network": settings.get("network", {}),
        "onWake": settings.get("onWake"),
        "envNames": sorted(settings.get("env", ())),
        "services": _declared(settings.get("services")),
        "snapshotId": settings.get("snapshotId"),
        **_policy(settings),
    }
    if "snapshotId" not in settings:
        told["image"] = settings.get("image", DEFAULT_IMAGE)
        if told["image"] == DEFAULT_IMAGE:
            told["filesCount"] = 0
    return told


def as_found(made: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is known of a session that had the name before the create."""
    return {**made, "name": name}


def as_forked(made: Mapping[str, Any], settings: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Combines a session in the response of a fork with what was asked for, and with what is known of the source."""
    inherited = {name: source[name] for name in (*INHERITED, "envNames", "services", "image") if name in source}
    given = {name: settings[name] for name in INHERITED if name in settings}
    if "env" in settings:
        given["envNames"] = sorted(settings["env"])
    if "services" in settings:
        given["services"] = _declared(settings["services"])
    told = {**_as_new(made, settings), "snapshotId": None, **inherited, **given}
    if "sleepPolicy" in settings:
        del told["sleepPolicy"]
        told |= _policy(settings)
    return told


def _policy(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sleep policy that was asked for. Defaults of the server and of the plan are not known."""
    policy = settings.get("sleepPolicy") or {}
    return {"sleepPolicy": policy} if policy.keys() >= WAITS else {}


def _as_new(made: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": settings.get("name"),
        "existed": False,
        "lastActive": made.get("createdAt"),
        "state": "active",
        "activeProcesses": 0,
        "metadata": settings.get("metadata", {}),
        "checkpointedAt": None,
        **made,
    }


class SeenSession:
    """A session's properties, as the server last reported them. Raises LookupError for one that is not known yet."""

    def __init__(self, session_id: str, told: Mapping[str, Any] | None = None) -> None:
        self.id = session_id
        self._told: dict[str, Any] = {}
        if told is not None:
            self._see(told)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    @property
    def name(self) -> str | None:
        """Its name, which is unique in the account. Wherever an id is taken, `name:` and the name is taken too."""
        name: str | None = self._known("name")
        return name

    @property
    def existed(self) -> bool:
        """False if the call that returned this object created the session."""
        return bool(self._told.get("existed", True))

    @property
    def created_at(self) -> datetime:
        """When it was created, in UTC."""
        return datetime.fromisoformat(self._known("createdAt"))

    @property
    def expires_at(self) -> datetime | None:
        """When it expires, in UTC. None if its `ttl` is `never`."""
        told: str | None = self._known("expiresAt")
        return None if told is None else datetime.fromisoformat(told)

    @property
    def last_active(self) -> datetime:
        """When it was last used, in UTC."""
        return datetime.fromisoformat(self._known("lastActive"))

    @property
    def state(self) -> SessionState:
        """`active`, `idle` (its processes are suspended) or `deep-sleep` (they have ended; files are kept)."""
        state: SessionState = self._known("state")
        return state

    @property
    def files_count(self) -> int:
        """Files under `/workspace`, up to about 100,000."""
        return int(self._known("filesCount"))

    @property
    def active_processes(self) -> int:
        """All its processes, those of runs, contexts and terminals too. While it sleeps, the count of its last
        activity: in deep sleep they have ended."""
        return int(self._known("activeProcesses"))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Your own labels."""
        metadata: Mapping[str, Any] = self._known("metadata")
        return metadata

    @property
    def resource_limits(self) -> ResourceLimits:
        """Memory, cores, disk and the timeout of runs."""
        return from_wire(ResourceLimits, self._known("resourceLimits"))

    @property
    def preview(self) -> PreviewSettings:
        """Which ports are open to anyone."""
        return from_wire(PreviewSettings, self._known("preview"))

    @property
    def network(self) -> NetworkSettings:
        """What the session may reach."""
        return from_wire(NetworkSettings, self._known("network"))

    @property
    def on_wake(self) -> str | None:
        """The command that runs after each wake from deep sleep."""
        command: str | None = self._known("onWake")
        return command

    @property
    def sleep_policy(self) -> SleepPolicy:
        """When it sleeps, and how often its files are archived while it is awake. Of a new session, this is known only
        if the whole policy was asked for."""
        return from_wire(SleepPolicy, self._known("sleepPolicy"))

    @property
    def declared_services(self) -> Sequence[DeclaredService]:
        """The services that it declares. `services.list()` shows how they are."""
        declared: Sequence[DeclaredService] = each(DeclaredService)(self._known("services"))
        return declared

    @property
    def checkpointed_at(self) -> datetime | None:
        """When the newest state of its files was taken that the archive has, in UTC: at a checkpoint or a deep sleep.
        None if there is none."""
        told: str | None = self._known("checkpointedAt")
        return None if told is None else datetime.fromisoformat(told)

    @property
    def env_names(self) -> Sequence[str]:
        """The names of its environment variables. The server never returns their values."""
        return tuple(self._known("envNames"))

    @property
    def image(self) -> str:
        """The name of the image that it was created on."""
        return str(self._known("image"))

    @property
    def snapshot_id(self) -> str | None:
        """The snapshot that it was created from. It stays after a restore, and when the snapshot is gone."""
        snapshot_id: str | None = self._known("snapshotId")
        return snapshot_id

    def preview_url(self, port: int = DEFAULT_PORT) -> str:
        """Returns the URL at which a port of the session is visible in a browser. Programs use `fetch`.

        `port`: 1024 to 65535; other ports have no preview. Raises InvalidRequest.
        """
        require_port(port)
        url = str(self._known("previewUrl"))
        if port == DEFAULT_PORT:
            return url
        host = urlsplit(url).netloc
        name, dot, domain = host.partition(".")
        return url.replace(host, f"{name}-{port}{dot}{domain}", 1)

    def _is_open(self, port: int) -> bool:
        """Whether anyone may visit the port, as far as is known."""
        preview = from_wire(PreviewSettings, self._told.get("preview") or {})
        return preview.visibility == "public" and port in preview.ports

    @property
    def _run_timeout(self) -> int | None:
        """Seconds that a run without its own timeout may take, if known."""
        limits = self._told.get("resourceLimits")
        return None if limits is None else int(limits["timeout"])

    def _see(self, told: Mapping[str, Any]) -> None:
        self._told |= told
        self.id = told.get("sessionId", self.id)  # it was opened by its name

    def _is_known(self, name: str) -> bool:
        return name in self._told

    def _known(self, name: str) -> Any:
        try:
            return self._told[name]
        except KeyError:
            raise LookupError(f"{name} of session {self.id} is not known yet: call refresh() first.") from None
