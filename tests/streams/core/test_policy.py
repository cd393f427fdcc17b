"""What the flows know of a receiver is a value."""

from streams.core.policy import SinkPolicy


def test_policies_of_one_configuration_are_equal() -> None:
    """They are compared from record to record; another identity is another receiver."""
    assert SinkPolicy("rentsync", "a") == SinkPolicy("rentsync", "a")
    assert len({SinkPolicy("rentsync", "a"), SinkPolicy("rentsync", "b"), SinkPolicy("zillow", "a")}) == 3
