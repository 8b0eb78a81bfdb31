"""The images that an account can use."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from buntime import errors, requests
from buntime.caller import Caller
from buntime.daemon.steps import reached
from buntime.daemon.tasks import Tasks
from buntime.image import DEFAULT_IMAGE, MADE_PREFIX, OPERATOR, NamedImage
from buntime.lifecycle.layers import Layers
from buntime.operations.entrance import Entrance
from buntime.operations.kept import Kept
from buntime.ports import Answer, Sandboxes, Store, VolumeLost
from buntime.requests import NewImage
from buntime.snapshot import MOST_LAYERS, Layer, MadeImage

type AnswerTo = Callable[[NamedImage], Answer]


class Images:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        layers: Layers,
        kept: Kept,
        entrance: Entrance,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._layers = layers
        self._kept = kept
        self._entrance = entrance
        self._tasks = tasks
        self._clock = clock

    async def create(self, caller: Caller, new: NewImage, answer: AnswerTo | None = None) -> NamedImage:
        """An image with the files of a session or a snapshot. `answer`: see `Sessions.create`.

        Raises SessionNotFound, SnapshotNotFound, ResourceLimitExceeded, InvalidRequest when the image would stand on
        too many others, and Unavailable.
        """
        requests.check_image(new)
        await self._kept.check_room(caller)
        if new.session is None:
            return await self._create_here(caller, new, answer)
        return await self._entrance.wherever(caller, new.session, lambda _: self._create_here(caller, new, answer))

    async def _create_here(self, caller: Caller, new: NewImage, answer: AnswerTo | None) -> NamedImage:
        return await self._tasks.finish(self._create(caller, new, answer), f"create image for {caller.account.id}")

    async def _create(self, caller: Caller, new: NewImage, answer: AnswerTo | None) -> NamedImage:
        if new.session is not None:
            session, layer = await self._layers.capture(new.session)
            return await self._store_made(caller, new, session.image, layer, layer, answer)
        snapshot = await self._kept.find(caller, new.snapshot or "")
        try:
            kept = await self._store.get_layer(snapshot.layer)
            if kept is None:
                raise VolumeLost(snapshot.layer)
            async with self._layers.using(kept.id):
                return await self._store_made(caller, new, snapshot.image, kept, None, answer)
        except (VolumeLost, errors.SnapshotNotFound):  # it was deleted meanwhile
            raise errors.SnapshotNotFound(snapshot.id) from None

    async def _store_made(
        self, caller: Caller, new: NewImage, base: str, layer: Layer, new_layer: Layer | None, answer: AnswerTo | None
    ) -> NamedImage:
        """`new_layer`: the layer, if no store has it yet."""
        made: MadeImage | None = None
        try:
            await self._check_depth(base)
            with _refusing():
                digest = await self._sandboxes.volumes.digest(layer.id)
            now = int(self._clock())
            made = MadeImage(_id(caller.account.id, base, digest, new.env), base, layer.id, new.env, layer.size, now)
            named = NamedImage(new.name, made.id, made.size, now, caller.account.id)
            with _refusing():
                await self._sandboxes.know(await self._store.get_made_image(made.id) or made)
            reached("image: known")
            with self._kept.naming_plan(caller):
                told = answer and answer(named)
                await self._store.add_made_image(made, named, new_layer, told, caller.plan.images)
        except errors.CommitUnknown:
            raise  # the same as when cancelled
        except Exception:  # not when cancelled: it may be stored then, and the next start decides
            if made is not None and await self._store.get_made_image(made.id) is None:
                await self._sandboxes.forget(made.id)
            if new_layer is not None:
                await self._layers.discard(new_layer.id)
            raise
        reached("image: stored")
        stored = await self._store.get_made_image(made.id)
        if stored is not None:  # the same files may have become an image, or have been one that was just forgotten
            with _refusing():
                await self._sandboxes.know(stored)
        self._layers.look_soon()
        self._layers.start_saving(layer.id)
        return named

    async def _check_depth(self, base: str) -> None:
        depth, image = 1, await self._store.get_made_image(base)
        while image is not None:
            depth, image = depth + 1, await self._store.get_made_image(image.base)
        if depth > MOST_LAYERS:
            raise errors.InvalidRequest(
                "sessionId",
                f"An image may stand on {MOST_LAYERS - 1} others that accounts made, not on more.",
                limit=MOST_LAYERS,
            )

    async def list(self, caller: Caller, limit: int, offset: int) -> tuple[Sequence[NamedImage], int]:
        """A page, sorted by name, and the total. The host's own image is not in it."""
        found = await self._store.list_images(caller.account.id)
        return found[offset : offset + limit], len(found)

    async def find(self, caller: Caller, name: str) -> NamedImage:
        """Raises ImageNotFound."""
        found = await self._store.find_image(caller.account.id, name)
        if found is None:
            raise errors.ImageNotFound(name)
        return found

    async def delete(self, caller: Caller, name: str) -> None:
        """Takes the name from an image of the account. Raises ImageNotFound, and Forbidden for the operator's."""
        if await self._store.remove_image(caller.account.id, name):
            self._layers.look_soon()
            return
        if name == DEFAULT_IMAGE or (await self.find(caller, name)).account == OPERATOR:
            raise errors.Forbidden(f"The image {name!r} is the operator's. Only the operator can remove it.")


@contextmanager
def _refusing() -> Iterator[None]:
    """Raises InvalidState where the host says that no session could stand on the files."""
    try:
        yield
    except ValueError as wrong:
        raise errors.InvalidState(f"No session can stand on these files: {wrong}.", reason="unusable_files") from None


def _id(account: str, base: str, digest: str, env: Mapping[str, str]) -> str:
    """Names the content, for one account: the image below, the files and the environment."""
    whole = json.dumps([account, base, digest, sorted(env.items())])
    return MADE_PREFIX + hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]
