"""Which properties take part, and when a receiver counts as another one."""

import pytest

from streams.core.policy import SinkPolicy, Switches, identity


@pytest.mark.parametrize(
    ("switches", "included"),
    [
        (Switches(), {1, 2, 3}),
        (Switches(off=frozenset({2})), {1, 3}),
        (Switches(default=False), set()),
        (Switches(default=False, on=frozenset({2})), {2}),
        (Switches(default=True, on=frozenset({1}), off=frozenset({2, 3})), {1}),
    ],
)
def test_the_switches_decide_and_else_the_default(switches: Switches, included: set[int]) -> None:
    policy = SinkPolicy("o", "portal", "portal", "id", switches)

    assert {one for one in (1, 2, 3) if switches.includes(one)} == included
    assert {one for one in (1, 2, 3) if policy.includes(one)} == included


def test_a_receiver_is_another_one_when_its_system_age_address_or_switches_are() -> None:
    several = [
        identity("portal", "2026", "https://a", Switches()),
        identity("rentsync", "2026", "https://a", Switches()),
        identity("portal", "2027", "https://a", Switches()),
        identity("portal", "2026", "https://b", Switches()),
        identity("portal", "2026", None, Switches()),
        identity("portal", "2026", "https://a", Switches(default=False)),
        identity("portal", "2026", "https://a", Switches(on=frozenset({1}))),
        identity("portal", "2026", "https://a", Switches(off=frozenset({1}))),
    ]

    assert len(set(several)) == len(several)
    assert identity("portal", "2026", "https://a", Switches(off=frozenset({1, 9}))) == identity(
        "portal", "2026", "https://a", Switches(off=frozenset({9, 1}))
    )
