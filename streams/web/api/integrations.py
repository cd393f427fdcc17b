"""The routes of integrations: HTTP in front of an `IntegrationService`."""

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.exceptions import HTTPException

from streams.directory.model import Conflict, IntegrationState, NotFound
from streams.web.api.access import AppParts, Parts, Reader, Writer
from streams.web.api.bodies import JsonRoute
from streams.web.api.models import (
    CheckOutcome,
    Integration,
    IntegrationInput,
    RotatedIntegration,
    WebhookSecretRotation,
)
from streams.web.api.openapi import headers, problems
from streams.web.api.service import IntegrationService

_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_ETAGS: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"(\s*,\s*(W/)?"[\x21\x23-\x7e]*")*')


router = APIRouter(prefix="/api/integrations", route_class=JsonRoute, tags=["integrations"])

Name = Annotated[
    str,
    Path(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$",
        description="1 to 64 lower-case letters, digits and inner dashes.",
        examples=["buildium"],
    ),
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description='The ETag that the integration must still have, such as `"3"`; `*`: any.'),
]

_ALWAYS: Final = (401, 403, 500, 503)
_NAMED: Final = (*_ALWAYS, 404, 422)
_CHANGES: Final = (*_NAMED, 400, 409, 412)
_WITH_ETAG: Final[dict[int | str, dict[str, Any]]] = {200: {"headers": headers("ETag")}}


# -------------------------------------------------------------------------------------------------------------- reading


@router.get("", operation_id="listIntegrations", summary="List the integrations", responses=problems(*_ALWAYS))
async def list_integrations(caller: Reader, parts: AppParts, request: Request) -> list[Integration]:
    """Return the integrations of the token's org, by name."""
    base_url = _base_url(parts, request)
    return [Integration.of(state, base_url) for state in await parts.service.list(caller.org)]


@router.get(
    "/{name}",
    operation_id="getIntegration",
    summary="Read an integration",
    responses=_WITH_ETAG | problems(*_NAMED),
)
async def get_integration(
    name: Name, caller: Reader, parts: AppParts, request: Request, response: Response
) -> Integration:
    """Return one integration."""
    return _shown(await parts.service.get(caller.org, name), parts, request, response)


@router.post(
    "/{name}/check",
    operation_id="checkIntegration",
    summary="Test the connection of an integration",
    responses=problems(*_NAMED, 409),
)
async def check_integration(name: Name, caller: Reader, parts: AppParts) -> CheckOutcome:
    """Test the connection with what is stored, without changing anything; takes up to ten seconds."""
    return CheckOutcome.of(await parts.service.check(caller.org, name))


# ------------------------------------------------------------------------------------------------------------- changing


@router.put(
    "/{name}",
    operation_id="putIntegration",
    summary="Create or change an integration",
    responses={
        **_WITH_ETAG,
        201: {"model": Integration, "description": "Created, disabled.", "headers": headers("ETag", "Location")},
        **problems(*(status for status in _CHANGES if status != 404), 413, 415),
    },
)
async def put_integration(
    name: Name,
    body: IntegrationInput,
    caller: Writer,
    parts: AppParts,
    request: Request,
    response: Response,
    if_match: IfMatch = None,
) -> Integration:
    """Store a configuration. A new integration is disabled; a secret that is not named is kept, null removes it."""
    try:
        expected = await _expected_version(parts.service, caller.org, name, if_match)
    except NotFound:
        raise _changed() from None
    try:
        state, created = await parts.service.put(caller.org, name, body.wanted(expected), caller.subject)
    except Conflict:
        if expected is not None and await _version(parts.service, caller.org, name) != expected:
            raise _changed() from None
        raise
    if created:
        response.status_code = 201
        response.headers["Location"] = f"/api/integrations/{name}"
    return _shown(state, parts, request, response)


@router.delete(
    "/{name}",
    operation_id="deleteIntegration",
    summary="Delete an integration",
    status_code=204,
    response_class=Response,
    responses=problems(*_CHANGES),
)
async def delete_integration(name: Name, caller: Writer, parts: AppParts, if_match: IfMatch = None) -> None:
    """Delete a stored integration with its secrets. One that the environment describes reappears."""
    await _expected_version(parts.service, caller.org, name, if_match)
    await parts.service.delete(caller.org, name, caller.subject)


@router.post(
    "/{name}/enable",
    operation_id="enableIntegration",
    summary="Enable an integration",
    responses=_WITH_ETAG | problems(*_CHANGES),
)
async def enable_integration(
    name: Name, caller: Writer, parts: AppParts, request: Request, response: Response, if_match: IfMatch = None
) -> Integration:
    """Start to read from or send to the system."""
    await _expected_version(parts.service, caller.org, name, if_match)
    return _shown(await parts.service.enable(caller.org, name, caller.subject), parts, request, response)


@router.post(
    "/{name}/disable",
    operation_id="disableIntegration",
    summary="Disable an integration",
    responses=_WITH_ETAG | problems(*_CHANGES),
)
async def disable_integration(
    name: Name, caller: Writer, parts: AppParts, request: Request, response: Response, if_match: IfMatch = None
) -> Integration:
    """Stop reading from or sending to the system; nothing of the configuration is lost."""
    await _expected_version(parts.service, caller.org, name, if_match)
    return _shown(await parts.service.disable(caller.org, name, caller.subject), parts, request, response)


@router.post(
    "/{name}/rotate-webhook-secret",
    operation_id="rotateWebhookSecret",
    summary="Add or remove a webhook secret",
    responses={**_WITH_ETAG, **problems(*_CHANGES, 413, 415)},
)
async def rotate_webhook_secret(
    name: Name,
    caller: Writer,
    parts: AppParts,
    request: Request,
    response: Response,
    body: WebhookSecretRotation | None = None,
    if_match: IfMatch = None,
) -> RotatedIntegration:
    """Add a webhook secret beside those that are there, or remove one that is no longer used.

    All of them are valid until they are removed, so that no webhook is refused while the system changes over.
    """
    await _expected_version(parts.service, caller.org, name, if_match)
    wanted = body or WebhookSecretRotation()
    generated = None
    if wanted.remove is not None:
        state = await parts.service.remove_webhook_secret(caller.org, name, wanted.remove, caller.subject)
    else:
        state, generated = await parts.service.rotate_webhook_secret(caller.org, name, wanted.secret, caller.subject)
    response.headers["ETag"] = f'"{state.version}"'
    members = Integration.members(state, _base_url(parts, request))
    return RotatedIntegration(**members, new_secret=generated.get_secret_value() if generated is not None else None)


# --------------------------------------------------------------------------------------------------------------- shared


def _shown(state: IntegrationState, parts: Parts, request: Request, response: Response) -> Integration:
    response.headers["ETag"] = f'"{state.version}"'
    return Integration.of(state, _base_url(parts, request))


def _base_url(parts: Parts, request: Request) -> str:
    """Return the address of this server as callers see it; nothing if the request does not name a usable one."""
    if parts.public_url is not None:
        return parts.public_url.rstrip("/")
    host = request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host}" if _HOST.fullmatch(host) else ""


async def _version(service: IntegrationService, org: str, name: str) -> int | None:
    try:
        return (await service.get(org, name)).version
    except NotFound:
        return None


async def _expected_version(service: IntegrationService, org: str, name: str, if_match: str | None) -> int | None:
    """Return the version that If-Match demands; null without one. Raise 412 if the stored version is another one."""
    if if_match is None:
        return None
    header = if_match.strip()
    if header != "*" and not _ETAGS.fullmatch(header):
        raise HTTPException(400, 'The header If-Match takes ETags in quotes, such as "3", or *.')
    version = (await service.get(org, name)).version
    # A weak ETag never matches (RFC 9110, 13.1.1).
    if header != "*" and f'"{version}"' not in [tag.strip() for tag in header.split(",")]:
        raise _changed()
    return version


def _changed() -> HTTPException:
    return HTTPException(412, "The integration is not at the version of If-Match: read it again, then repeat.")
