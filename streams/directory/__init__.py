"""Integrations as every process knows them: key ring, directory, clients, and the service that changes them."""
