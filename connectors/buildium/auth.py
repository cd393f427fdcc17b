"""How a call proves who it is: two headers on every request (Buildium, Authentication section)."""

from collections.abc import Generator

import httpx
from pydantic import SecretStr


class BuildiumAuth(httpx.Auth):
    """Puts the API key on a request at the moment of sending; its text shows no secret."""

    def __init__(self, client_id: SecretStr, client_secret: SecretStr) -> None:
        self._client_id = client_id
        self._client_secret = client_secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["x-buildium-client-id"] = self._client_id.get_secret_value()
        request.headers["x-buildium-client-secret"] = self._client_secret.get_secret_value()
        yield request
