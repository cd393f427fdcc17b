"""Commands of upstream apps: their order, what they wait for, and what became of them."""

from streams.core.sync.keys import entity_key, entity_of, open_of
from streams.core.sync.machine import CONFLICT, REJECTED, Cause, apply

__all__ = ["CONFLICT", "REJECTED", "Cause", "apply", "entity_key", "entity_of", "open_of"]
