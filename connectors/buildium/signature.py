"""Signatures of webhooks over their timestamp and body (Buildium, Signature Checks section).

The signature is ``base64(HMAC-SHA256(secret, timestamp + "." + body))``, secret and body as UTF-8. Only this form is
accepted, because every other accepted form would give an attacker another chance.
"""

import base64
import hmac
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic import SecretStr

TOLERANCE_SECONDS: Final = 300
"""The largest difference between the timestamp and the local clock; it limits the replay of an intercepted webhook."""

_TIMESTAMP: Final = re.compile(r"\d{1,16}", re.ASCII)
_MILLISECONDS_FROM: Final = 100_000_000_000
"""Buildium does not state the unit of its timestamp; from this value (in seconds the year 5138) it is milliseconds."""


def sign(body: bytes, timestamp: str, secret: SecretStr) -> str:
    """Return the signature of a webhook."""
    message = timestamp.encode("utf-8", "replace") + b"." + body
    return base64.b64encode(hmac.digest(secret.get_secret_value().encode(), message, "sha256")).decode("ascii")


def verify(
    body: bytes, timestamp: str | None, signature: str | None, secrets: Sequence[SecretStr], now: datetime
) -> str | None:
    """Return why the signature of a webhook is not valid, as text for the sender; null if it is valid."""
    # Anyone can sign with an empty key. The settings reject it as well.
    secrets = [secret for secret in secrets if secret.get_secret_value().strip()]
    if not secrets:
        return "no webhook secret is configured for this connection"
    if not signature or not timestamp:
        return "the webhook is not signed: buildium-webhook-signature and buildium-webhook-timestamp are needed"
    if not _TIMESTAMP.fullmatch(timestamp):
        return "buildium-webhook-timestamp is not a UNIX time"
    if abs(now.timestamp() - _seconds(int(timestamp))) > TOLERANCE_SECONDS:
        return f"buildium-webhook-timestamp is more than {TOLERANCE_SECONDS} s away from the clock of this machine"
    if not (
        _matches(body, timestamp, signature, secrets)
        or ((compact := _compact(body)) is not None and _matches(compact, timestamp, signature, secrets))
    ):
        return "the signature does not match any configured webhook secret"
    return None


def _seconds(stamp: int) -> float:
    return stamp / 1000 if stamp >= _MILLISECONDS_FROM else stamp


def _matches(body: bytes, timestamp: str, signature: str, secrets: Sequence[SecretStr]) -> bool:
    received = signature.encode("utf-8", "replace")
    matches = [hmac.compare_digest(sign(body, timestamp, secret).encode(), received) for secret in secrets]
    return any(matches)  # after a comparison with every secret, so that the duration reveals nothing


def _compact(body: bytes) -> bytes | None:
    """Return the compact JSON that Buildium sends, in case a gateway has reformatted it; null if nothing differs."""
    try:
        compact = json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return compact if compact != body else None
