"""Authentication of API calls by two headers on every request (Buildium, Authentication section)."""

from collections.abc import Generator

import httpx
from pydantic import SecretStr


class BuildiumAuth(httpx.Auth):
    """Adds the API key to a request when it is sent; its repr shows no secret."""

    def __init__(self, client_id: SecretStr, client_secret: SecretStr) -> None:
        self._client_id = client_id
        self._client_secret = client_secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["x-buildium-client-id"] = self._client_id.get_secret_value()
        request.headers["x-buildium-client-secret"] = self._client_secret.get_secret_value()
        yield request
