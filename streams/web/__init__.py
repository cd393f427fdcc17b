"""The HTTP side of the web role: server, webhook ingress, API."""
