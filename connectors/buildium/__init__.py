"""Buildium, the first property management system: reads entities, understands webhooks."""
