"""The authentication schemes of RentSync (guide, chapter 5), each a function that returns an `httpx.Auth`.

An `httpx.Auth` receives the complete request, so a scheme that signs the body or renews a token fits the same
interface as one that sends a key.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import quote_plus

import httpx
from pydantic import SecretStr

from connectors.http import CallFailed, meaning, phrase, retry_after
from connectors.ports import Clock, Unauthorized, Unavailable

TOKEN_HEADER: Final = "X-Auth-Token"  # noqa: S105 -- the name of a header
EARLY: Final = 60.0
"""Seconds before its end at which a token is renewed; a tenth of its lifetime, if that is less."""
_TITLE: Final = "The token endpoint of RentSync"


class Credentials(Protocol):
    """The settings that the schemes need."""

    @property
    def api_key(self) -> SecretStr: ...
    @property
    def token(self) -> SecretStr: ...
    @property
    def token_header(self) -> str: ...
    @property
    def hmac_secrets(self) -> Sequence[SecretStr]: ...
    @property
    def oauth_token_url(self) -> str: ...
    @property
    def oauth_client_id(self) -> str: ...
    @property
    def oauth_client_secret(self) -> SecretStr: ...
    @property
    def oauth_scope(self) -> str: ...
    @property
    def user_agent(self) -> str: ...


class Header(httpx.Auth):
    """Sends a secret in a header."""

    def __init__(self, name: str, value: SecretStr, prefix: str = "") -> None:
        self._name, self._value, self._prefix = name, value, prefix

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._name] = self._prefix + self._value.get_secret_value()
        yield request


class Signature(httpx.Auth):
    """Signs the body after Standard Webhooks 1.0.0, with each of the secrets while they are rotated.

    The id of the message is the ``Idempotency-Key``: the same for every attempt with the same content.
    """

    requires_request_body = True

    def __init__(self, secrets: Sequence[SecretStr], now: Callable[[], datetime]) -> None:
        self._keys = [signing_key(one.get_secret_value()) for one in secrets]
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        message = request.headers.get("idempotency-key", "").strip('"') or "test"
        stamp = str(int(self._now().timestamp()))
        request.headers["webhook-id"] = message
        request.headers["webhook-timestamp"] = stamp
        request.headers["webhook-signature"] = " ".join(
            signature(key, message, stamp, request.content) for key in self._keys
        )
        yield request


def signing_key(secret: str) -> bytes:
    """Return the bytes of a secret: base64 after ``whsec_``, any other text as it is. Raise `ValueError`."""
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("what follows whsec_ is not base64") from None


def signature(key: bytes, message: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a message with one key, as ``v1,`` and base64."""
    digest = hmac.digest(key, f"{message}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class ClientCredentials(httpx.Auth):
    """Sends a bearer token that it gets with the client credentials grant (RFC 6749, 4.4), through the same client.

    A token is used by all calls until shortly before its end; of several calls that need a new one, one asks for it. A
    401 renews it once. A failure of the token endpoint is raised as `connectors.http.CallFailed`.
    """

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._renewing = asyncio.Lock()
        self._token: str | None = None
        self._until = float("inf")
        """By `Clock.monotonic`."""

    @property
    def token(self) -> str:
        """Return the present token, to mask it in error texts; empty if there is none."""
        return self._token or ""

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        refused: str | None = None
        for last in (False, True):
            async with self._renewing:
                if self._token in (None, refused) or self._clock.monotonic() >= self._until:
                    answer = yield self._request(request)
                    self._take(answer, await answer.aread())
            used = self._token
            request.headers["Authorization"] = f"Bearer {used}"
            response = yield request
            if response.status_code != 401 or last:
                return
            refused = used

    def _request(self, called: httpx.Request) -> httpx.Request:
        given = self._credentials
        basic = f"{quote_plus(given.oauth_client_id)}:{quote_plus(given.oauth_client_secret.get_secret_value())}"
        form = {"grant_type": "client_credentials"} | ({"scope": given.oauth_scope} if given.oauth_scope else {})
        return httpx.Request(
            "POST",
            given.oauth_token_url,
            data=form,
            headers={
                "authorization": f"Basic {base64.b64encode(basic.encode()).decode()}",
                "accept": "application/json",
                "user-agent": given.user_agent,
            },
            extensions=called.extensions,
        )

    def _take(self, answer: httpx.Response, body: bytes) -> None:
        """Keep the token of an answer. Raise `CallFailed`."""
        content, status = _object(body), answer.status_code
        if not 200 <= status < 300:
            # RFC 6749, 5.2: a client that is refused is answered with 400 or 401.
            detail = f"{_TITLE} answered {phrase(status)}" + _reason(content)
            wait = retry_after(answer.headers.get("retry-after"), self._clock.now())
            failure = meaning(status, detail, wait)
            raise CallFailed(Unauthorized(detail, status=401) if status in (400, 401, 403) else failure)
        token, lifetime = content.get("access_token"), content.get("expires_in")
        kind = content.get("token_type", "Bearer")
        if not isinstance(token, str) or not _fits_a_header(token) or str(kind).lower() != "bearer":
            raise CallFailed(Unavailable(f"{_TITLE} answered {phrase(status)} without a bearer token", status))
        self._token = token
        self._until = float("inf")
        if isinstance(lifetime, int | float) and not isinstance(lifetime, bool):
            self._until = self._clock.monotonic() + max(lifetime - min(EARLY, lifetime / 10), 0.0)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _reason(content: Mapping[str, Any]) -> str:
    """Return the error code of RFC 6749, 5.2, which holds no secret."""
    code = content.get("error")
    known = {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"}
    return f": {code}" if isinstance(code, str) and code in known | {"unsupported_grant_type"} else ""


def _fits_a_header(text: str) -> bool:
    return bool(text) and all("!" <= letter <= "~" for letter in text)


Scheme = Callable[[Credentials, Clock], httpx.Auth]

AUTHS: Final[Mapping[str, Scheme]] = {
    "api-key": lambda given, _: Header("X-API-Key", given.api_key),
    "bearer": lambda given, _: Header(
        "Authorization", given.token if given.token.get_secret_value() else given.api_key, "Bearer "
    ),
    "static-token": lambda given, _: Header(given.token_header, given.token),
    "hmac": lambda given, clock: Signature(given.hmac_secrets, clock.now),
    "oauth2": ClientCredentials,
}
"""The schemes of `RENTSYNC_AUTH`."""

NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "api-key": ("api_key",),
    "bearer": ("token",),
    "static-token": ("token",),
    "hmac": ("hmac_secrets",),
    "oauth2": ("oauth_token_url", "oauth_client_id", "oauth_client_secret"),
}
"""The settings that each scheme needs; `bearer` takes the API key in place of the token."""
