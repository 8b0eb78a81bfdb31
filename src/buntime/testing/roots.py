"""A fake of the images that operators have added, for tests."""

from collections.abc import Collection, Iterator


class FakeRoots:
    """`ports.Roots`. The files of an image are `files_of` its id."""

    def __init__(self) -> None:
        self.here: set[str] = set()
        self.lacking: set[str] = set()  # every image that is not in it is on the host

    @staticmethod
    def files_of(image_id: str) -> bytes:
        return f"files of {image_id}".encode()

    def has(self, image_id: str) -> bool:
        return image_id not in self.lacking

    def all(self) -> Collection[str]:
        return self.here - self.lacking

    def send(self, image_id: str) -> Iterator[bytes]:
        yield self.files_of(image_id)

    def receive(self, image_id: str, content: Iterator[bytes]) -> None:
        if b"".join(content) != self.files_of(image_id):
            raise ValueError(f"this is not {image_id}")
        self.lacking.discard(image_id)
        self.here.add(image_id)
