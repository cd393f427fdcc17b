from hypothesis import given
from hypothesis import strategies as st

from streams.engine.ledger import Ledger


def test_nothing_is_done_before_a_fold_says_so() -> None:
    ledger = Ledger()
    ledger.deliver(9)

    assert ledger.done is None
    assert ledger.delivered == 9
    assert ledger.waiting == 1


def test_the_offset_is_the_one_after_the_last_batch_that_is_done() -> None:
    ledger = Ledger()
    ledger.deliver(0)
    ledger.finish(0)
    ledger.deliver(1999)
    ledger.finish(1999)

    assert ledger.done == 2000
    assert ledger.waiting == 0


def test_a_batch_of_two_folds_is_done_when_both_are() -> None:
    ledger = Ledger()
    ledger.deliver(4, readers=2)
    ledger.finish(4)

    assert ledger.done is None

    ledger.finish(4)

    assert ledger.done == 5


def test_a_batch_of_before_a_rebalance_counts_for_nothing() -> None:
    ledger = Ledger()
    ledger.finish(4)
    ledger.deliver(9)
    ledger.finish(7)

    assert ledger.done is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_the_offset_never_passes_a_batch_that_is_open(lengths: list[int], data: st.DataObject) -> None:
    ledger, lasts, at = Ledger(), [], -1
    for length in lengths:
        at += length
        lasts.append(at)
        ledger.deliver(at)
    for finished in data.draw(st.permutations(lasts)):
        ledger.finish(finished)
        still = [last for last in lasts if last in ledger._open and ledger._open[last].readers > 0]
        before = [last for last in lasts if not still or last < still[0]]

        assert ledger.done == (before[-1] + 1 if before else None)
