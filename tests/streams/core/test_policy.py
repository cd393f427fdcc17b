"""Which properties take part, and when a receiver counts as another one."""

import pytest

from streams.core.policy import SinkPolicy, Switches, fingerprint, identity, switches_of


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


def test_a_receiver_is_another_one_when_its_system_age_or_address_is() -> None:
    several = [
        identity("portal", "2026", "https://a"),
        identity("rentsync", "2026", "https://a"),
        identity("portal", "2027", "https://a"),
        identity("portal", "2026", "https://b"),
        identity("portal", "2026", None),
    ]

    assert len(set(several)) == len(several)
    assert identity("portal", "2026", "https://a") == several[0]


def test_a_fingerprint_changes_with_every_switch_and_with_nothing_else() -> None:
    several = [
        Switches(),
        Switches(default=False),
        Switches(on=frozenset({1})),
        Switches(off=frozenset({1})),
    ]

    assert len({fingerprint(*switches_of(one)) for one in several}) == len(several)
    assert fingerprint(*switches_of(Switches(off=frozenset({1, 9})))) == fingerprint(
        *switches_of(Switches(off=frozenset({9, 1})))
    )
