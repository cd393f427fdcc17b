"""Integrations of every process: key ring, directory, clients, and the service that changes them."""
