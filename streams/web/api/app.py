"""The API as one ASGI app. Everything it works with is passed in, so that a process may have several."""

import logging
from functools import cache
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.directory.model import IntegrationError
from streams.syncs.service import KeyReused
from streams.web.api import commands, integrations, models, problems
from streams.web.api import replays as replay_routes
from streams.web.api import view as view_routes
from streams.web.api.access import AppParts, Health, Parts
from streams.web.api.openapi import Document, document, webhook_routes
from streams.web.api.openapi import problems as documented_problems
from streams.web.api.service import IntegrationService, ReplayService, SyncService, ViewService
from streams.web.api.tokens import TokenVerifier

log = logging.getLogger("streams.web.api")

_LINKS: Final = {
    "openapi": "/openapi.json",
    "health": "/healthz",
    "integrations": "/api/integrations",
    "syncs": "/api/buildium/sync",
    "rentRoll": "/api/rent-roll",
    "deliveries": "/api/deliveries",
    "webhooks": "/api/webhooks",
    "deadLetters": "/api/dead-letters",
    "replays": "/api/replays",
}

server_routes = APIRouter(tags=["server"])


@server_routes.get("/", operation_id="getIndex", summary="Show what this server is", responses=documented_problems(500))
async def index(parts: AppParts) -> models.Index:
    """Return the version and where to go on."""
    return models.Index(version=parts.version, links=_LINKS)


@server_routes.get(
    "/healthz",
    operation_id="getHealth",
    summary="Show whether requests can be answered",
    response_model=models.Health,
    responses=documented_problems(500, 503),
)
async def health(parts: AppParts) -> models.Health:
    """Return 200, or 503 with the reason."""
    ok, reason = parts.health()
    if not ok:
        raise HTTPException(503, reason, {"Retry-After": "5"})
    return models.Health()


@server_routes.get(
    "/openapi.json",
    operation_id="getOpenApi",
    summary="Read this document",
    response_class=JSONResponse,
    responses=documented_problems(500),
)
async def openapi(parts: AppParts) -> Response:
    """Return the OpenAPI document of everything that this server answers."""
    return Response(parts.document.body, media_type="application/json")


class Shell:
    """Wraps FastAPI: HEAD is GET without its body, and an unexpected exception is logged with the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            if scope["method"] == "HEAD":
                await self._app({**scope, "method": "GET"}, receive, without_body)
            else:
                await self._app(scope, receive, send)
        except Exception as error:  # it has been answered by `problems.on_unexpected`
            request_id = str(scope.get("request_id", b"?"), "ascii", "replace")
            log.exception("request %s: the API failed (%s)", request_id, type(error).__name__)


def _always_healthy() -> tuple[bool, str]:
    return True, "requests are answered"


def build_api(
    service: IntegrationService,
    syncs: SyncService,
    view: ViewService,
    replays: ReplayService,
    verifier: TokenVerifier,
    *,
    version: str,
    health: Health = _always_healthy,
    public_url: str | None = None,
) -> ASGIApp:
    """Return the API.

    ``public_url`` is the public URL of this server, if it is not the one in the requests.
    """
    app = _routed(
        exception_handlers={
            RequestValidationError: problems.on_validation_error,
            IntegrationError: problems.on_integration_error,
            KeyReused: problems.on_reused_key,
            HTTPException: problems.on_http_error,
            Exception: problems.on_unexpected,
        }
    )
    app.state.parts = Parts(service, syncs, view, replays, verifier, health, version, public_url, _document(version))
    return Shell(app)


@cache
def _document(version: str) -> Document:
    """Return the document of everything that the server answers, webhooks included."""
    return document([*_routed().routes, *webhook_routes()], version)


def _routed(**options: Any) -> FastAPI:
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # The environment must not enable telemetry implicitly, and bodies with secrets must not be exported.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
        **options,
    )
    app.include_router(server_routes)
    app.include_router(commands.router)
    app.include_router(integrations.router)
    app.include_router(view_routes.router)
    app.include_router(replay_routes.router)
    return app
