"""Who we talk to: one folder for each outside system, behind the ports of `connectors.ports`."""
