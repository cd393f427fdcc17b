"""Replays of all orgs: their plans, orders and progress."""
