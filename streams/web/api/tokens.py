"""Bearer tokens (JWT, RFC 7519): the caller, its org, and what it may do.

A key is pinned to one algorithm by its kind: a shared secret verifies HS256, an RSA key RS256, a P-256 key ES256. What
the token's own header asks for never chooses another one.
"""

import asyncio
import json
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import jwt
from pydantic import SecretStr

from connectors.addresses import check_url
from connectors.http import exchange
from connectors.ports import Clock, Failure
from connectors.settings import SettingsError

log = logging.getLogger("streams.web.api.tokens")

LEEWAY_SECONDS: Final = 60.0
"""How far the clock of the issuer may be ahead of the local one; there is no tolerance for an expired token."""
REFRESH_SECONDS: Final = 30.0
"""The shortest time between two fetches of the JWKS, for any key ids in the tokens."""
STALE_SECONDS: Final = 300.0
"""After this time the JWKS is fetched again although every key id is known: a key may have been revoked."""
FETCH_SECONDS: Final = 5.0
MAX_JWKS_BYTES: Final = 1024 * 1024
MIN_SECRET_BYTES: Final = 32
"""RFC 7518, 3.2: a key for HS256 has at least the size of the hash."""

DEFAULT_ORG: Final = "default"
ORG: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
"""RFC 6749, 3.3."""
_ALGORITHM_BY_KEY: Final[Mapping[tuple[str, str | None], str]] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}
"""By ``kty`` and ``crv``; keys of other kinds are ignored, symmetric ones above all: a JWKS is public."""


# ----------------------------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as its verified token states."""

    subject: str
    org: str
    scopes: frozenset[str] | None
    """Null: all."""

    def may(self, scope: str) -> bool:
        """Return whether the token has the scope."""
        return self.scopes is None or scope in self.scopes


class InvalidToken(Exception):  # noqa: N818
    """The token proves nothing; the sentence states why and never shows the token."""


class KeysUnavailable(Exception):  # noqa: N818
    """The keys that could verify the token cannot be fetched now."""


@dataclass(frozen=True, slots=True)
class Key:
    """One verification key."""

    algorithm: str
    value: Any
    """As PyJWT takes it: a text or a public key."""
    id: str | None = None

    def __repr__(self) -> str:
        return f"Key({self.algorithm}, {self.id!r})"


class Keys(Protocol):
    """Where verification keys come from."""

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """Return the keys that may have signed such a token. Raise `KeysUnavailable`."""
        ...


# --------------------------------------------------------------------------------------------------------- verification


class TokenVerifier:
    """Turns the text of a bearer token into a `Caller`."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock

    async def verify(self, token: str) -> Caller:
        """Raise `InvalidToken` or `KeysUnavailable`."""
        algorithm, key_id = _header(token)
        keys = await self._keys.find(algorithm, key_id)
        if not keys:
            raise InvalidToken("no key is known that could have signed the token with its algorithm and key id")
        return caller(_payload(token, keys), self._clock.now())


def _header(token: str) -> tuple[str, str | None]:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise InvalidToken("it is not a signed JWT") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        raise InvalidToken("its header names no algorithm, or a key id that is not text")
    return algorithm, key_id


def _payload(token: str, keys: Sequence[Key]) -> dict[str, Any]:
    """Return the claims that one of the keys proves; times are checked by `caller`, against a clock passed in."""
    options: Any = {
        "require": ["exp"],
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "verify_aud": False,
        "verify_sub": False,
        "verify_jti": False,
        "enforce_minimum_key_length": True,
    }
    for key in keys:
        try:
            return dict(jwt.decode(token, key.value, algorithms=[key.algorithm], options=options))
        except jwt.InvalidSignatureError:
            continue
        except jwt.MissingRequiredClaimError:
            raise InvalidToken("it has no claim exp, so it would never expire") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise InvalidToken("it is not a signed JWT that can be read") from None
    raise InvalidToken("its signature is wrong")


def caller(claims: Mapping[str, Any], now: datetime) -> Caller:
    """Return who the claims describe. Raise `InvalidToken` if they are not, no longer or not yet valid."""
    at = now.timestamp()
    if _seconds(claims, "exp") <= at:
        raise InvalidToken("it has expired; get a new one")
    for name in ("nbf", "iat"):
        if name in claims and _seconds(claims, name) > at + LEEWAY_SECONDS:
            raise InvalidToken(f"it is not valid yet: its claim {name} is in the future")
    subject, org = claims.get("sub"), claims.get("org", DEFAULT_ORG)
    if not isinstance(subject, str) or not 0 < len(subject) <= 256 or not subject.isprintable():
        raise InvalidToken("its claim sub must be a text of 1 to 256 printable characters")
    if not isinstance(org, str) or not ORG.fullmatch(org):
        raise InvalidToken("its claim org must be 1 to 64 letters, digits, dots, dashes or underscores")
    return Caller(subject, org, _scopes(claims))


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise InvalidToken(f"its claim {name} must be a number of seconds")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _scopes(claims: Mapping[str, Any]) -> frozenset[str] | None:
    if "scope" not in claims:
        return None
    if not isinstance(claims["scope"], str):
        raise InvalidToken("its claim scope must be one text, the scopes separated by spaces")
    return frozenset(claims["scope"].split())


# ----------------------------------------------------------------------------------------------------------------- keys


class SharedSecret:
    """One secret that signs and verifies (HS256)."""

    def __init__(self, secret: SecretStr) -> None:
        self._key = Key("HS256", _checked(secret))

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """Return the secret for any key id; none for another algorithm."""
        del key_id
        return (self._key,) if algorithm == self._key.algorithm else ()


def _checked(secret: SecretStr) -> str:
    value = secret.get_secret_value()
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise SettingsError([f"RENTSTREAM_JWT_SECRET has fewer than {MIN_SECRET_BYTES} bytes: take a longer one"])
    return value


Fetch = Callable[[], Awaitable[bytes]]
"""Returns the bytes of a JWKS. Raises `KeysUnavailable`."""


class Jwks:
    """The keys of a JWKS (RFC 7517), cached.

    It is fetched when a token names an unknown key, and now and then for the sake of revoked ones; the keys at hand
    stay in use while it cannot be fetched. A request waits for a fetch only if no key at hand fits.
    """

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._attempted_at: float | None = None
        self._failure: str | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """Return the keys of that id (without an id: all) for that algorithm."""
        found = self._matching(algorithm, key_id)
        fetching = self._fetch_again(STALE_SECONDS if found else REFRESH_SECONDS)
        if found:
            return found
        if fetching is not None:
            await asyncio.shield(fetching)
        found = self._matching(algorithm, key_id)
        if not found and self._failure is not None:
            raise KeysUnavailable(self._failure)
        return found

    async def aclose(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _matching(self, algorithm: str, key_id: str | None) -> tuple[Key, ...]:
        return tuple(key for key in self._keys if key.algorithm == algorithm and key_id in (None, key.id))

    def _fetch_again(self, after: float) -> asyncio.Task[None] | None:
        """Return the fetch under way, a new one if the last began long enough ago, else null."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        now = self._clock.monotonic()
        # A fetch that failed is repeated sooner than one that brought keys.
        wait = after if self._failure is None else REFRESH_SECONDS
        if self._attempted_at is not None and now - self._attempted_at < wait:
            return None
        self._attempted_at = now
        self._fetching = asyncio.create_task(self._load())
        return self._fetching

    async def _load(self) -> None:
        try:
            self._keys = read_jwks(await self._fetch())
        except KeysUnavailable as error:
            self._failure = str(error)
            log.warning("%s; the %d keys at hand stay in use", error, len(self._keys))
        else:
            self._failure = None


def read_jwks(body: bytes) -> tuple[Key, ...]:
    """Return the keys of a JWKS that can verify tokens. Raise `KeysUnavailable` if it is none."""
    try:
        entries = json.loads(body)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeysUnavailable("what was fetched as a JWKS is none") from None
    if not isinstance(entries, list):
        raise KeysUnavailable("what was fetched as a JWKS is none")
    keys = [_jwk(entry) for entry in entries if isinstance(entry, dict)]
    return tuple(key for key in keys if key is not None)


def _jwk(entry: dict[str, Any]) -> Key | None:
    """Return the key; null for one of another kind or purpose, or one that is broken."""
    curve = entry.get("crv") if entry.get("kty") == "EC" else None
    algorithm = _ALGORITHM_BY_KEY.get((str(entry.get("kty")), curve if isinstance(curve, str | None) else ""))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    public: dict[str, Any] = {name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry}
    try:
        value = jwt.PyJWK.from_dict(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        log.warning("a key of the JWKS cannot be used (%s)", type(error).__name__)
        return None
    key_id = entry.get("kid")
    return Key(algorithm, value, key_id if isinstance(key_id, str) else None)


def from_url(url: str, client: httpx.AsyncClient) -> Fetch:
    """Return how to fetch a JWKS over HTTP."""

    async def fetch() -> bytes:
        host = "the host of RENTSTREAM_JWT_JWKS"
        reply = await exchange(
            client, client.build_request("GET", url), system=host, seconds=FETCH_SECONDS, most_bytes=MAX_JWKS_BYTES
        )
        if isinstance(reply, Failure):
            raise KeysUnavailable(reply.detail)
        if reply.status != httpx.codes.OK:
            raise KeysUnavailable(f"{host} answered {reply.status}")
        return reply.body

    return fetch


def from_file(path: Path) -> Fetch:
    """Return how to read a JWKS from a file."""

    async def fetch() -> bytes:
        try:
            return await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise KeysUnavailable(f"the file of RENTSTREAM_JWT_JWKS cannot be read: {error.strerror}") from None

    return fetch


def jwks(location: str, client: httpx.AsyncClient, clock: Clock, *, allow_private: bool = False) -> Jwks:
    """Return the keys at a URL or in a file. Raise `SettingsError` if the location cannot be used."""
    if "://" not in location:
        return Jwks(from_file(Path(location)), clock)
    # An identity provider may well have a private address; plain http would let anyone on the way replace the keys.
    wrong = check_url(location, allow_private=True)
    if wrong is None and not allow_private and not location.lower().startswith("https://"):
        wrong = "plain http is refused, use https (RENTSTREAM_ALLOW_PRIVATE=1 allows it for tests)"
    if wrong is not None:
        raise SettingsError([f"RENTSTREAM_JWT_JWKS: {wrong}"])
    return Jwks(from_url(location, client), clock)


# ------------------------------------------------------------------------------------------------------------- issuance


def issue(
    secret: SecretStr, sub: str, org: str, scopes: Sequence[str] | None, expires_in: timedelta, now: datetime
) -> str:
    """Return a token signed with the shared secret (HS256); ``scopes`` null: all. Raise `InvalidToken`.

    The claims are checked as those of a received token are, so that what is issued is also accepted.
    """
    if any(not _SCOPE.fullmatch(scope) for scope in scopes or ()):
        raise InvalidToken("a scope has no spaces or quotes, such as integrations:read")
    if expires_in <= timedelta():
        raise InvalidToken("it would be expired at once")
    try:
        until = now + expires_in
    except OverflowError:
        raise InvalidToken("it would be valid for too long") from None
    claims: dict[str, Any] = {"sub": sub, "org": org, "iat": int(now.timestamp()), "exp": math.ceil(until.timestamp())}
    if scopes is not None:
        claims["scope"] = " ".join(scopes)
    caller(claims, now)
    return jwt.encode(claims, _checked(secret), algorithm="HS256")
