"""Names are spread evenly over an interval, and always in the same way."""

import pytest

from streams.core.spread import share_of, until_next


def test_names_are_spread_evenly() -> None:
    shares = sorted(share_of(f"org{number}/buildium") for number in range(1000))

    assert 0 <= shares[0] < 0.01
    assert 0.99 < shares[-1] < 1
    assert all(abs(share - at / 1000) < 0.06 for at, share in enumerate(shares))
    assert share_of("org7/buildium") == share_of("org7/buildium")


@pytest.mark.parametrize(("seconds", "share", "wait"), [(0, 0.0, 0), (1, 0.0, 59), (600, 0.5, 30), (631, 0.5, 59)])
def test_the_next_interval_begins_after_the_share_of_a_name(seconds: float, share: float, wait: float) -> None:
    assert until_next(seconds, 60.0, share) == pytest.approx(wait)
