"""The pages of the console as an ASGI app in front of the API.

It answers its own paths, and two of the API's when a browser asks for them: ``/`` and ``/api/buildium/sync``.
Pages contain no script; every change is a form with the token of the session.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.ports import Clock
from schemas.commands import SyncEntity, SyncOperation, SyncState
from schemas.integrations import CheckReport
from streams.directory.model import (
    Conflict,
    IntegrationError,
    IntegrationState,
    Invalid,
    NotFound,
    Unavailable,
)
from streams.web.api.tokens import ORG
from streams.web.console import overview
from streams.web.console.sessions import LASTS, Session, Sessions, TooManyAttempts
from streams.web.ingress import ClientDisconnected, TooLarge, read_body

log = logging.getLogger("streams.web.console")

BY: Final = "console"
"""Who changed an integration, for the audit trail."""
COOKIE: Final = "rentstream_session"
MOST_FORM_BYTES: Final = 16 * 1024
SYNCS: Final = "/api/buildium/sync"

_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept, Cookie",
}
_FOLDER: Final = Path(__file__).parent / "templates"
_STYLE: Final = (_FOLDER / "console.css").read_bytes()


class Integrations(Protocol):
    """What the console needs of the store of integrations (`streams.directory.service.Integrations`)."""

    async def orgs(self) -> Sequence[str]: ...

    async def list(self, org: str) -> Sequence[IntegrationState]: ...

    async def get(self, org: str, name: str) -> IntegrationState: ...

    async def enable(self, org: str, name: str, by: str) -> IntegrationState: ...

    async def disable(self, org: str, name: str, by: str) -> IntegrationState: ...

    async def check(self, org: str, name: str) -> CheckReport: ...

    async def sweep(self, org: str, name: str, *, confirm_removals: bool = False) -> str: ...


class Syncs(Protocol):
    """What the console needs of the commands (`streams.syncs.service.Syncs`)."""

    def failed(self, org: str) -> Sequence[SyncState]: ...

    async def retry(
        self, org: str, by: str, entity: SyncEntity, own_id: str | None = None
    ) -> Sequence[SyncOperation]: ...


@dataclass(frozen=True, slots=True)
class Action:
    """A button of an integration: what it does, and what the next page states about it."""

    run: Callable[[Integrations, str, str], Awaitable[object]]
    done: str


ACTIONS: Final[Mapping[str, Action]] = {
    "sync": Action(lambda service, org, name: service.sweep(org, name), "A full read of {name} is asked for."),
    "confirm-removals": Action(
        lambda service, org, name: service.sweep(org, name, confirm_removals=True),
        "{name} is read once more, and what it no longer has is removed.",
    ),
    "enable": Action(lambda service, org, name: service.enable(org, name, BY), "{name} is enabled."),
    "disable": Action(lambda service, org, name: service.disable(org, name, BY), "{name} is disabled."),
    "check": Action(lambda service, org, name: service.check(org, name), "The connection of {name} was tested."),
}
"""By the last part of the path."""

Form = Mapping[str, str]


class Console:
    """Answers the pages, and passes every other request on."""

    def __init__(
        self,
        others: ASGIApp,
        integrations: Integrations,
        syncs: Syncs,
        sessions: Sessions,
        clock: Clock,
        *,
        secure: bool = False,
    ) -> None:
        """``secure``: people reach this server by https only, so the cookie must not go over http."""
        self._others = others
        self._integrations = integrations
        self._syncs = syncs
        self._sessions = sessions
        self._clock = clock
        self._secure = secure
        self._templates = Jinja2Templates(_FOLDER)
        self._templates.env.globals.update(ago=self._ago, attention=overview.needs_attention, syncs_path=SYNCS)
        signed_in = self._signed_in
        self._router = Router(
            redirect_slashes=False,
            routes=[
                Route("/console.css", self._style),
                Route("/sign-in", self._show_sign_in, methods=["GET"]),
                Route("/sign-in", self._sign_in, methods=["POST"]),
                Route("/sign-out", signed_in(self._sign_out), methods=["POST"]),
                Route("/", signed_in(self._overview)),
                Route("/integrations/{org}/{name}", signed_in(self._integration), methods=["GET"]),
                Route("/integrations/{org}/{name}/{action}", signed_in(self._act), methods=["POST"]),
                Route(SYNCS, signed_in(self._failed_syncs), methods=["GET"]),
                Route("/syncs/retry", signed_in(self._retry), methods=["POST"]),
            ],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_page(scope):
            await self._others(scope, receive, send)
            return
        scope = {**scope, "app": self}  # so the router raises 404 and 405 instead of answering them as plain text
        request = Request(scope, receive)
        try:
            await self._router(scope, receive, send)
        except Exception as error:
            await self._problem(request, error)(scope, receive, send)

    def _is_page(self, scope: Scope) -> bool:
        path = scope["path"]
        if path in ("/", SYNCS):
            return scope["method"] in ("GET", "HEAD") and _wants_html(scope)
        return path in ("/console.css", "/sign-in", "/sign-out") or path.startswith(("/integrations/", "/syncs/"))

    # --------------------------------------------------------------------------------------------------------- sign-in

    def _signed_in(self, page: "Page") -> "Callable[[Request], Awaitable[Response]]":
        """Return a page that only a person who signed in gets, and only with forms that this server made."""

        async def answer(request: Request) -> Response:
            session = self._sessions.read(request.cookies.get(COOKIE))
            if session is None:
                back = request.url.path if request.method == "GET" else "/"
                query = f"?{request.url.query}" if request.method == "GET" and request.url.query else ""
                return _see(f"/sign-in?{urlencode({'next': back + query})}")
            form: Form = {}
            if request.method == "POST":
                form = await _form(request)
                if not hmac.compare_digest(form.get("form_token", "").encode(), session.form_token.encode()):
                    raise HTTPException(403, "This form is out of date: go back, reload the page and send it again.")
            return await page(request, session, form)

        return answer

    async def _show_sign_in(self, request: Request) -> Response:
        if self._sessions.read(request.cookies.get(COOKIE)) is not None:
            return _see(_local(request.query_params.get("next", "/")))
        return self._page(request, "sign_in.html", next=_local(request.query_params.get("next", "/")))

    async def _sign_in(self, request: Request) -> Response:
        form = await _form(request)
        back = _local(form.get("next", "/"))
        try:
            cookie = self._sessions.open(form.get("password", ""))
        except TooManyAttempts as error:
            log.warning("The console refuses sign-ins for a moment: %s", error)
            response = self._page(request, "sign_in.html", 429, next=back, problem=f"{error}.".capitalize())
            response.headers["Retry-After"] = str(max(1, round(error.seconds)))
            return response
        if cookie is None:
            log.warning("A sign-in with a wrong password was refused")
            return self._page(request, "sign_in.html", 403, next=back, problem="The password is wrong.")
        response = _see(back)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=int(LASTS.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=self._secure or request.url.scheme == "https",
        )
        return response

    async def _sign_out(self, request: Request, session: Session, form: Form) -> Response:
        del request, session, form
        response = _see("/sign-in")
        response.delete_cookie(COOKIE)
        return response

    # ----------------------------------------------------------------------------------------------------------- pages

    async def _style(self, request: Request) -> Response:
        del request
        return Response(_STYLE, media_type="text/css", headers={"Cache-Control": "max-age=300"})

    async def _overview(self, request: Request, session: Session, form: Form) -> Response:
        del form
        wanted = overview.Wanted.of(request.query_params)
        found = await overview.read(self._integrations, wanted)
        failed = {one.org: len(self._failed(one.org)) for one in found.orgs}
        return self._page(request, "overview.html", session=session, wanted=wanted, found=found, failed=failed)

    async def _integration(self, request: Request, session: Session, form: Form) -> Response:
        del form
        state = await self._integrations.get(*_named(request))
        return self._page(request, "integration.html", session=session, one=state)

    async def _act(self, request: Request, session: Session, form: Form) -> Response:
        del session, form
        org, name = _named(request)
        action = ACTIONS.get(request.path_params["action"])
        if action is None:
            raise HTTPException(404)
        await action.run(self._integrations, org, name)
        return _see(f"/integrations/{quote(org)}/{quote(name)}?{urlencode({'done': request.path_params['action']})}")

    async def _failed_syncs(self, request: Request, session: Session, form: Form) -> Response:
        del form
        org = request.query_params.get("org", "")
        orgs = list(await self._integrations.orgs())
        found = [one for name in ([org] if org else orgs) for one in self._failed(name)]
        found.sort(key=lambda one: (one.updated_at, one.org, one.id), reverse=True)
        return self._page(request, "syncs.html", session=session, orgs=orgs, org=org, failed=found[: overview.MOST])

    async def _retry(self, request: Request, session: Session, form: Form) -> Response:
        del request, session
        try:
            entity = SyncEntity(form.get("entity", ""))
        except ValueError:
            raise HTTPException(400, "The form names no kind of entity.") from None
        org = form.get("org", "")
        await self._syncs.retry(org, BY, entity, form.get("id", ""))
        return _see(f"{SYNCS}?{urlencode({'org': org, 'done': 'retry'})}")

    def _failed(self, org: str) -> Sequence[SyncState]:
        """Return what failed; nothing while the commands are still being read, as the integrations do not need them."""
        with suppress(Unavailable):
            return self._syncs.failed(org)
        return ()

    # ---------------------------------------------------------------------------------------------------------- shared

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        notice = _notice(request.query_params, request.path_params)
        context = {"session": None, "notice": notice, "problem": None, "path": request.url.path, **values}
        response = self._templates.TemplateResponse(request, template, context, status)
        response.headers.update(_HEADERS)
        return response

    def _problem(self, request: Request, error: Exception) -> Response:
        """Return the page of an error."""
        status, detail = _status_of(error)
        if status == 500:
            request_id = str(request.scope.get("request_id", b"?"), "ascii", "replace")
            log.error("request %s: a page of the console failed", request_id, exc_info=error)
        session = self._sessions.read(request.cookies.get(COOKIE))
        return self._page(request, "problem.html", status, session=session, code=status, detail=detail)

    def _ago(self, moment: Any) -> str:
        return overview.ago((self._clock.now() - moment).total_seconds())


Page = Callable[[Request, Session, Form], Awaitable[Response]]
"""A page of a person who signed in; the form is empty for a GET."""


def _wants_html(scope: Scope) -> bool:
    """Return whether a browser asks; programs name JSON or anything (`*/*`) only."""
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def _local(path: str) -> str:
    """Return a path of this server; ``/`` for anything that a browser would take for another one."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and "\\" not in path
    return path if plain else "/"


def _see(path: str) -> Response:
    return RedirectResponse(path, 303, headers=dict(_HEADERS))


async def _form(request: Request) -> Form:
    """Return the fields of a form. Raise an HTTP error if it is too large or none."""
    try:
        body = await read_body(request.scope, request.receive, MOST_FORM_BYTES)
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict"))
    except TooLarge:
        raise HTTPException(413, f"A form has at most {MOST_FORM_BYTES // 1024} KiB.") from None
    except ClientDisconnected:
        raise HTTPException(400, "The form did not arrive.") from None
    except ValueError:
        raise HTTPException(400, "This is not a form of the console.") from None


def _named(request: Request) -> tuple[str, str]:
    org, name = request.path_params["org"], request.path_params["name"]
    if not ORG.fullmatch(org):
        raise HTTPException(404)
    return org, name


def _notice(query: QueryParams, path: Mapping[str, Any]) -> str | None:
    done = query.get("done")
    if done == "retry":
        return "It is tried again now."
    action = ACTIONS.get(done or "")
    return action.done.format(name=path.get("name", "")) if action else None


_STATUSES: Final[Mapping[type[IntegrationError], int]] = {NotFound: 404, Conflict: 409, Unavailable: 503, Invalid: 422}


def _status_of(error: Exception) -> tuple[int, str]:
    if isinstance(error, IntegrationError):
        text = str(error)
        return _STATUSES.get(type(error), 409), text[:1].upper() + text[1:]
    if isinstance(error, HTTPException):
        known = {404: "There is no such page.", 405: "This page does not take such a request."}
        return error.status_code, known.get(error.status_code, error.detail)
    return 500, "The request met a mistake of the server; it is logged. Try again later."
