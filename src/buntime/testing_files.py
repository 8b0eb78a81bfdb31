"""The fake of `inside.Files`."""


class FakeFiles:
    pass
