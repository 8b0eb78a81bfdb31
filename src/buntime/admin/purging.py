"""`buntime purge`: leaves this host as if the server had never been there."""

import asyncio
import shutil
import sys
from pathlib import Path

import uvloop

from buntime.config import BadSetting, Config
from buntime.daemon.listening import Listening
from buntime.daemon.logs import configure_logs
from buntime.daemon.only_server import only_server
from buntime.daemon.tasks import Tasks
from buntime.edge.process import stop_left_over
from buntime.errors import BuntimeError
from buntime.fleet.watchdog import end_watchdog
from buntime.sandboxes import opening
from buntime.sandboxes.fencing import HostFence
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.images.shelf import Shelf
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.freezing import end_all, find_freezer
from buntime.sandboxes.kernel.host import NoPart

END_SECONDS = 30.0  # for the processes of all sandboxes to end


def purge(config: Config) -> None:
    """Removes every session, and everything else that servers of this data directory made on the host.

    Raises BadSetting when a server uses the directory, and when something could not be removed.
    """
    if not config.data_dir.exists():
        return
    configure_logs("warning")
    with only_server(config):
        try:
            # before anything opens for them: a lost host's sessions may run elsewhere by now, on newer files
            end_all(find_freezer(config.instance), END_SECONDS)
            _leave_fleet(config)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_purge(config))
            _give_up_images(config)
            _empty(config.data_dir)
            shutil.rmtree(config.bodies_dir, ignore_errors=True)
        except (BuntimeError, HostCommandFailed, NoPart, OSError) as failed:
            raise BadSetting(f"not everything of {config.data_dir} could be removed: {failed}") from failed
        config.shared_lock.unlink(missing_ok=True)


def _leave_fleet(config: Config) -> None:
    """Opens the host, on which nothing runs any more."""
    if not config.lease_file.exists():
        return
    end_watchdog(config.lease_file)
    HostFence(config.instance, Listening((), config.port)).remove()


def _give_up_images(config: Config) -> None:
    """Other servers of this host may use the same directory, and the same images."""
    if not config.images.exists():
        return
    shelf = Shelf(config.images, config.instance)
    with shelf.locked(lambda line: print(line, file=sys.stderr)):
        shelf.prune(())


def _empty(directory: Path) -> None:
    for entry in list(directory.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


async def _purge(config: Config) -> None:
    async with Links() as links, Tasks() as tasks:
        await opening.purge(config, tasks, links)
        await asyncio.to_thread(stop_left_over, config.run_dir / "edge")
