"""The whole system under test: in memory with a movable clock, and on a real cluster."""

from tests.world.world import (
    Account,
    Since,
    World,
    asking_rent,
    current_lease,
    listed_rent,
    pick,
    pick_rented,
    receiver_matches,
    residential,
    start_sweep,
)

__all__ = [
    "Account",
    "Since",
    "World",
    "asking_rent",
    "current_lease",
    "listed_rent",
    "pick",
    "pick_rented",
    "receiver_matches",
    "residential",
    "start_sweep",
]
