"""The console: pages for people in front of the integrations and the syncs."""
