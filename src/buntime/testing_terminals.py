"""The fake of `inside.Terminals`."""


class FakeTerminals:
    pass
