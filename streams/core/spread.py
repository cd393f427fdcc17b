"""How work that every org has at an interval is spread over it, so that not all of it begins in the same moment."""

import hashlib
from collections.abc import Callable
from functools import lru_cache

Share = Callable[[str], float]
"""Returns which share of an interval the work of a name begins after the interval does: from 0 to below 1."""


@lru_cache(maxsize=65_536)
def share_of(name: str) -> float:
    """Return the share of a name: always the same, and evenly distributed over names."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) / (1 << 32)


def until_next(seconds: float, every: float, share: float) -> float:
    """Return how long after a moment, in seconds since the epoch, the next interval of a share begins; 0 if now."""
    return (share * every - seconds) % every
