"""`buntime watchdog`: fences this host when its server shows no renewal."""

from buntime.config import SHARED_RUN_DIR, Config
from buntime.daemon.listening import listening_as_member
from buntime.fleet.watchdog import watch
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.kernel.freezing import group_above


def run(config: Config) -> None:
    """Returns when a signal ends it, with the host fenced. Raises BadSetting."""
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    fence = HostFence(config.instance, listening_as_member(config))
    watch(config.lease_file, fence, group_above(config.instance))
