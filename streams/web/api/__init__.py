"""The HTTP API of the web role, apart from webhooks: FastAPI over what stores integrations."""
