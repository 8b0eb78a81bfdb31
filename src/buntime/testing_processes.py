"""The fake of `inside.Processes`."""


class FakeProcesses:
    pass
