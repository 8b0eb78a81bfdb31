"""A service: a program that a session declares, and that runs whenever the session is awake."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MOST_SERVICES = 8  # of one session

Restart = Literal["always", "on-failure", "never"]


@dataclass(frozen=True, slots=True)
class Service:
    """`restart`: when the program is started again after it has ended."""

    name: str  # of no other service of the session
    command: str
    port: int | None = None  # on which it will listen
    working_dir: str = "/workspace"
    env: Mapping[str, str] = field(default_factory=dict)
    restart: Restart = "always"

    @property
    def revision(self) -> str:
        """Differs when the service does."""
        text = json.dumps([self.command, self.port, self.working_dir, dict(self.env), self.restart])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def whole_env(self) -> Mapping[str, str]:
        """Its variables, with PORT for its port."""
        return ({} if self.port is None else {"PORT": str(self.port)}) | dict(self.env)
