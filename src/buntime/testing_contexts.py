"""The fake of `inside.Contexts`."""


class FakeContexts:
    pass
