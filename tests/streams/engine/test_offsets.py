from hypothesis import given
from hypothesis import strategies as st

from streams.engine.offsets import OffsetTracker


def test_no_batch_is_finished_before_its_fold() -> None:
    tracker = OffsetTracker()
    tracker.deliver(9)

    assert tracker.done is None
    assert tracker.delivered == 9
    assert tracker.waiting == 1


def test_the_offset_is_the_one_after_the_last_finished_batch() -> None:
    tracker = OffsetTracker()
    tracker.deliver(0)
    tracker.finish(0)
    tracker.deliver(1999)
    tracker.finish(1999)

    assert tracker.done == 2000
    assert tracker.waiting == 0


def test_a_batch_of_two_folds_is_finished_when_both_have_finished() -> None:
    tracker = OffsetTracker()
    tracker.deliver(4, readers=2)
    tracker.finish(4)

    assert tracker.done is None

    tracker.finish(4)

    assert tracker.done == 5


def test_a_batch_from_before_a_rebalance_is_ignored() -> None:
    tracker = OffsetTracker()
    tracker.finish(4)
    tracker.deliver(9)
    tracker.finish(7)

    assert tracker.done is None


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_the_offset_never_passes_a_batch_that_is_open(lengths: list[int], data: st.DataObject) -> None:
    tracker, lasts, at = OffsetTracker(), [], -1
    for length in lengths:
        at += length
        lasts.append(at)
        tracker.deliver(at)
    for finished in data.draw(st.permutations(lasts)):
        tracker.finish(finished)
        still = [last for last in lasts if last in tracker._open and tracker._open[last].readers > 0]
        before = [last for last in lasts if not still or last < still[0]]

        assert tracker.done == (before[-1] + 1 if before else None)
