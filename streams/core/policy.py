"""Which properties take part in an integration, and what the flows have to know of a receiver."""

import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Switches:
    """The per-property switches of an integration."""

    default: bool = True
    on: frozenset[int] = frozenset()
    off: frozenset[int] = frozenset()

    def includes(self, property_id: int) -> bool:
        """Return whether a property (the PMS's id) takes part."""
        return property_id not in self.off if self.default else property_id in self.on


@dataclass(frozen=True, slots=True)
class SinkPolicy:
    """An enabled receiver of an org."""

    org: str
    name: str
    system: str
    identity: str
    """Another one means: what the receiver acknowledged before counts no more, or covers other properties."""
    switches: Switches = Switches()

    def includes(self, property_id: int) -> bool:
        """Return whether the receiver gets a property."""
        return self.switches.includes(property_id)


def identity(system: str, created: str, url: object, switches: Switches) -> str:
    """Return a short hash that changes with the receiver (when it was created, its address) and with its switches."""
    facts = [system, created, url, switches.default, sorted(switches.on), sorted(switches.off)]
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
