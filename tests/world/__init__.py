"""The whole system under test: in memory with a movable clock, and on a real cluster."""

from tests.world.world import (
    Since,
    World,
    asking_rent,
    current_lease,
    listed_rent,
    pick,
    pick_rented,
    receiver_matches,
    start_sweep,
)

__all__ = [
    "Since",
    "World",
    "asking_rent",
    "current_lease",
    "listed_rent",
    "pick",
    "pick_rented",
    "receiver_matches",
    "start_sweep",
]
