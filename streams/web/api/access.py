"""Who may do what: the bearer token of a request, and the scopes that a route needs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.exceptions import HTTPException

from streams.web.api.openapi import Document
from streams.web.api.service import IntegrationService, ReplayService, SyncService, ViewService
from streams.web.api.tokens import Caller, InvalidToken, KeysUnavailable, TokenVerifier

Health = Callable[[], tuple[bool, str]]
"""Returns whether requests can be answered, and a sentence that states why (not)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes of one app work with."""

    service: IntegrationService
    syncs: SyncService
    view: ViewService
    replays: ReplayService
    verifier: TokenVerifier
    health: Health
    version: str
    public_url: str | None
    document: Document


def parts_of(request: Request) -> Parts:
    """Return the parts of the app that answers the request."""
    parts: Parts = request.app.state.parts
    return parts


AppParts = Annotated[Parts, Depends(parts_of)]

SCOPES: Final = {
    "commands:write": "create and change properties and owners",
    "sync:read": "see what became of properties and owners",
    "sync:write": "have syncs tried again",
    "roll:read": "read the rent roll",
    "replay:read": "see what was given up, and replays",
    "replay:write": "plan and run replays",
    "integrations:read": "see integrations and test their connections",
    "integrations:write": "create, change, enable, disable and delete integrations",
}

bearer = HTTPBearer(
    scheme_name="bearer",
    bearerFormat="JWT",
    description="A JWT with the claims `sub`, `exp`, `org` (default `default`) and `scope` (separated by spaces; a "
    "token without it has all): " + ", ".join(f"`{scope}` ({meaning})" for scope, meaning in SCOPES.items()) + ".",
    auto_error=False,
)


async def authenticate(
    needed: SecurityScopes,
    parts: AppParts,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Caller:
    """Return the caller. Raise 401 without a valid token, 403 if it lacks a scope, 503 if it cannot be verified now."""
    if credentials is None:
        raise _refused(401, "A bearer token is needed: Authorization: Bearer <JWT>.", "Bearer")
    try:
        caller = await parts.verifier.verify(credentials.credentials)
    except InvalidToken as error:
        raise _refused(401, f"The bearer token is refused: {error}.", 'Bearer error="invalid_token"') from None
    except KeysUnavailable as error:
        detail = f"The bearer token cannot be verified now: {error}."
        raise HTTPException(503, detail, {"Retry-After": "5"}) from None
    for scope in needed.scopes:
        if not caller.may(scope):
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            raise _refused(403, f"The bearer token lacks the scope {scope}.", challenge)
    return caller


def _refused(status: int, detail: str, challenge: str) -> HTTPException:
    return HTTPException(status, detail, {"WWW-Authenticate": challenge})


Reader = Annotated[Caller, Security(authenticate, scopes=["integrations:read"])]
Writer = Annotated[Caller, Security(authenticate, scopes=["integrations:write"])]
