"""What the comparison of windows with cgroups finds."""

from typing import Any

from bench.metered import Watched, compared


def window(ordinal: int, begin: str, end: str, cpu: float = 1.0, session: str = "ses_a") -> dict[str, Any]:
    return {"windowId": f"win_{session}_{ordinal}", "sessionId": session, "from": begin, "to": end, "cpuSeconds": cpu}


def test_windows_that_agree_have_no_difference() -> None:
    found = compared([Watched("ses_a", None, used=2_000_000)], [window(1, "0", "1"), window(2, "1", "2")])
    assert (found.percent, found.worst, found.gaps, found.doubled) == (0, 0, 0, 0)


def test_a_gap_a_missing_window_and_a_doubled_one_are_found() -> None:
    watched = [Watched("ses_a", None, used=2_000_000)]
    assert compared(watched, [window(1, "0", "1"), window(2, "2", "3")]).gaps == 1
    assert compared(watched, [window(1, "0", "1"), window(3, "1", "2")]).gaps == 1
    assert compared(watched, []).gaps == 1
    assert compared(watched, [window(1, "0", "1"), window(1, "0", "1")]).doubled == 1


def test_differences_of_sessions_do_not_hide_one_another() -> None:
    watched = [Watched("ses_a", None, used=1_500_000), Watched("ses_b", None, used=500_000)]
    found = compared(watched, [window(1, "0", "1"), window(1, "0", "1", session="ses_b")])
    assert (found.percent, found.worst) == (0, 0.5)
