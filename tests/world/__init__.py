"""The whole system in memory, with a movable clock; and the same on a real cluster."""
