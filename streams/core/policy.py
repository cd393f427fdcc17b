"""Which properties take part in an integration, and what the flows have to know of a receiver."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from connectors.ports import Schedule

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
    """An enabled receiver of an org, as it stands to the connections of the org."""

    org: str
    name: str
    system: str
    identity: str
    """Changes with the receiver (created again, another address): what the former one acknowledged counts no more."""
    switches: Switches = Switches()
    changed_at: datetime = EPOCH
    """When the configuration was changed last; `EPOCH` for one of the environment."""
    enabled_at: datetime = EPOCH
    """When it was enabled last: what changed before that was not cut for it. `EPOCH` for one of the environment."""
    address: str = ""
    """Fingerprint of the system and the URL: another configuration with the same one is the same receiver outside."""
    form: str = ""
    """In which form it gets batches: another one needs a snapshot of everything."""
    revision: str = ""
    """Changes with anything that decides what the receiver is sent of a connection's properties."""

    schedule: Schedule | None = None
    """When it gets regular snapshots of everything; null: never."""

    def includes(self, property_id: int) -> bool:
        """Return whether the receiver gets a property."""
        return self.switches.includes(property_id)


def identity(system: str, created: str, url: object) -> str:
    """Return a short hash that changes with the receiver: when it was created, and its address."""
    return fingerprint(system, created, url)


def switches_of(switches: Switches) -> list[object]:
    """Return per-property switches in a form to take a fingerprint of."""
    return [switches.default, sorted(switches.on), sorted(switches.off)]


def fingerprint(*facts: object) -> str:
    """Return sixteen hexadecimal digits that change with the facts, which have to be fit for JSON."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
