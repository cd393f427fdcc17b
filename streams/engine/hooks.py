"""What the engine tells whoever measures it; the engine itself knows no metrics library."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _nothing(*_: Any) -> None:
    """Measure nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineHooks:
    """Callables for what happens. They are called on the event loop (``fatal``: on any thread) and must not wait."""

    batch: Callable[[str, str, int, float], None] = _nothing
    """Flow, topic, records, seconds from delivery to durable."""
    rows: Callable[[str, int], None] = _nothing
    """Table, rows written (changelog and store)."""
    effects: Callable[[str, str, int], None] = _nothing
    """Flow or scan, topic, records written."""
    scan: Callable[[str, int, int, float], None] = _nothing
    """Scan, partition, effects, seconds."""
    rebalance: Callable[[frozenset[int], float], None] = _nothing
    """Partitions that this worker owns now, seconds from the first sign of the rebalance to the end of recovery."""
    recovery: Callable[[int, float], None] = _nothing
    """Changelog records read, seconds."""
    lag: Callable[[str, int, int], None] = _nothing
    """Topic, partition, records that wait or are being worked on; every few seconds for owned partitions."""
    fatal: Callable[[int, str], None] = _nothing
    """Exit code, one sentence; the process ends when this returns."""
