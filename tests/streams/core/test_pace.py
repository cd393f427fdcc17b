"""A scan looks at once after a change, and else at an interval."""

from streams.core.pace import Pace


def test_it_looks_at_an_interval_and_after_a_change() -> None:
    pace, looks = Pace(5), []
    for configured, at in ((1, 0), (1, 4), (2, 4.5), (2, 9), (2, 9.5), (2, 20)):
        looks.append(pace.is_due(0, configured, at))
        if looks[-1]:
            pace.looked(0, configured, at)
    assert looks == [True, False, True, False, True, True]


def test_each_partition_has_its_own_interval() -> None:
    pace = Pace(5)
    pace.looked(0, 1, 0)
    assert [pace.is_due(partition, 1, 1) for partition in (0, 1)] == [False, True]


def test_a_look_that_is_cut_short_begins_again() -> None:
    pace = Pace(5)
    assert [pace.is_due(0, 1, at) for at in (0, 1)] == [True, True]
