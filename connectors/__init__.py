"""Connectors to external systems: one package for each system, behind the ports of `connectors.ports`."""
