"""The authentication schemes of RentSync, each a function that returns an `httpx.Auth`.

An `httpx.Auth` receives the complete request, so a scheme that signs the body or renews a token fits the same
interface.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Final, Protocol

import httpx
from pydantic import SecretStr


class Credentials(Protocol):
    """The settings that the schemes need."""

    @property
    def api_key(self) -> SecretStr: ...


class ApiKey(httpx.Auth):
    """Sends the key as ``X-API-Key``."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["X-API-Key"] = self._key.get_secret_value()
        yield request


def _api_key(credentials: Credentials) -> httpx.Auth:
    return ApiKey(credentials.api_key)


AUTHS: Final[Mapping[str, Callable[[Credentials], httpx.Auth] | None]] = {
    "api-key": _api_key,
    "bearer": None,
    "static-token": None,
    "hmac": None,
    "oauth2": None,
}
"""The schemes that `RENTSYNC_AUTH` documents; null if a scheme is not available yet."""
