"""What one host may do with its lease, by its own clock."""

import pytest

from buntime.fleet.budget import BUDGET, Budget
from buntime.fleet.lease import Lease, Phase

SENT = 100.0
HELD = Lease().joined(1, SENT, SENT).compared(1, SENT)
END = SENT + BUDGET.fence


def test_a_host_acts_only_once_it_has_compared_epochs() -> None:
    joined = Lease().joined(1, SENT, SENT)
    assert not joined.may_act(SENT)
    assert joined.compared(1, SENT).may_act(SENT)


def test_a_host_fences_itself_without_a_renewal() -> None:
    assert HELD.at(END - 0.1).may_act(END - 0.1)
    assert not HELD.may_act(END)
    assert HELD.at(END).phase is Phase.OUT


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    assert HELD.renewed(1, SENT + 1, SENT + 3).until == SENT + 1 + BUDGET.fence


def test_answers_in_another_order_shorten_nothing() -> None:
    renewed = HELD.renewed(1, SENT + 2, SENT + 3)
    assert renewed.renewed(1, SENT + 1, SENT + 3) == renewed


def test_a_lapsed_host_never_resumes_on_a_late_renewal() -> None:
    late = HELD.renewed(1, END - 0.1, END)
    assert late.phase is Phase.OUT
    assert not late.may_act(END)
    assert late.compared(1, END).phase is Phase.OUT


def test_a_lapsed_host_joins_anew_and_compares_again() -> None:
    again = HELD.at(END).joined(3, END, END)
    assert again.phase is Phase.COMPARING
    assert again.compared(3, END).may_act(END)


def test_a_join_that_is_answered_too_late_begins_nothing() -> None:
    late = Lease().joined(1, SENT, END)
    assert late.phase is Phase.OUT
    assert late.joined(1, END, END) == late, "its incarnation is used up"


def test_an_answer_to_an_earlier_join_changes_nothing() -> None:
    later = Lease().joined(2, SENT, SENT)
    assert later.joined(1, SENT, SENT) == later


def test_a_comparison_of_an_earlier_incarnation_does_not_count() -> None:
    assert Lease().joined(2, SENT, SENT).compared(1, SENT).phase is Phase.COMPARING


def test_a_refusal_fences_at_once_unless_it_is_of_an_earlier_incarnation() -> None:
    assert not HELD.refused(1).may_act(SENT)
    later = HELD.joined(2, SENT, SENT)
    assert later.refused(1) == later


def test_a_budget_without_time_between_silence_and_loss_is_refused() -> None:
    assert BUDGET.slack > 0
    with pytest.raises(ValueError, match="no time"):
        Budget(lease=6.0)
    with pytest.raises(ValueError, match="no time"):
        Budget(renew=4.0)
