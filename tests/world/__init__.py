"""The whole system in memory, with a movable clock; and the same on a real cluster."""

from tests.world.world import Since, World, live_lease, pick, pick_let, receiver_is_equal, rent_of, rent_told, sweep

__all__ = [
    "Since",
    "World",
    "live_lease",
    "pick",
    "pick_let",
    "receiver_is_equal",
    "rent_of",
    "rent_told",
    "sweep",
]
