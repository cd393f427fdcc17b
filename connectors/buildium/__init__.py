"""Buildium, a property management system: reading of entities, and verification of webhooks."""
