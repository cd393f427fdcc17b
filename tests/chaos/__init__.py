"""Kills, freezes and restarts of workers under load, and the account that has to be right afterwards."""
