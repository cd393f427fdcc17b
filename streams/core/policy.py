"""What the flows have to know of a receiver."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SinkPolicy:
    """An enabled receiver of an org."""

    name: str
    identity: str
    """Changes with the receiver (created again, another address): what the former one acknowledged counts no more."""
