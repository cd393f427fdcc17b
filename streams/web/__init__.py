"""The web role: the server, the webhook ingress, the API."""
