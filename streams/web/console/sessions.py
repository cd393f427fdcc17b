"""Sign-in of people: one password, and sessions as signed cookies that every web process can verify."""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import jwt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretBytes, SecretStr

from connectors.ports import Clock

LASTS: Final = timedelta(hours=12)
"""How long a session lasts; there is no extension."""
BURST: Final = 10
"""Wrong passwords in a row that are answered at once."""
REFILL_SECONDS: Final = 6.0
"""Seconds until one more wrong password is answered: at most 14,400 attempts a day."""

_ALGORITHM: Final = "HS256"
_PURPOSE: Final = "console"


@dataclass(frozen=True, slots=True)
class Session:
    """A person who signed in."""

    form_token: str
    """Every form repeats it, so that another site cannot submit one (cross-site request forgery)."""


class TooManyAttempts(Exception):  # noqa: N818
    """Too many wrong passwords came in a short time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"too many wrong passwords; try again in {max(1, round(seconds))} s")


class Sessions:
    """Opens and verifies sessions.

    The key of the signatures is derived from a key of the program and the password. So all web processes with the same
    settings accept the same sessions, a cookie does not help to guess the password, and a changed password ends every
    session.
    """

    def __init__(
        self,
        password: SecretStr,
        key: SecretBytes,
        clock: Clock,
        random_token: Callable[[], str] = lambda: secrets.token_urlsafe(16),
    ) -> None:
        self._password = password.get_secret_value().encode()
        self._key = HKDF(SHA256(), 32, salt=self._password, info=b"rentstream console session").derive(
            key.get_secret_value()
        )
        self._clock = clock
        self._random_token = random_token
        self._left = float(BURST)
        self._counted_at = clock.monotonic()

    def open(self, password: str) -> str | None:
        """Return the cookie of a new session; null if the password is wrong. Raise `TooManyAttempts`."""
        self._refill()
        if self._left < 1:
            raise TooManyAttempts((1 - self._left) * REFILL_SECONDS)
        if not hmac.compare_digest(password.encode(), self._password):
            self._left -= 1
            return None
        now = self._clock.now()
        claims = {"aud": _PURPOSE, "iat": now, "exp": now + LASTS, "form": self._random_token()}
        return jwt.encode(claims, self._key, _ALGORITHM)

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie; null if there is none, or it ended."""
        if not cookie:
            return None
        options = {"require": ["exp", "form"], "verify_exp": False, "verify_iat": False}
        try:
            claims = jwt.decode(cookie, self._key, [_ALGORITHM], options, audience=_PURPOSE)  # type: ignore[arg-type]
        except jwt.InvalidTokenError:
            return None
        # Compared here, because PyJWT asks the clock of the machine.
        if claims["exp"] <= self._clock.now().timestamp():
            return None
        return Session(str(claims["form"]))

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(BURST, self._left + (now - self._counted_at) / REFILL_SECONDS)
        self._counted_at = now
