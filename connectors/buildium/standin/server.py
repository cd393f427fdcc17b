"""The HTTP server of the stand-in: the part of Buildium's API that the connector uses, with its errors and limits.

From Buildium's API Overview: 401 without the two headers; 404 for a path or parameter name in the wrong case; 50 rows
by default and at most 1000; 500 for a query of more than 4096 characters; 429 for more than 10 calls at once or in a
second. The answers to an unknown path and an unknown sort field are not documented: here 404 and 400.
"""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.buildium.standin.owners import list_owners
from connectors.buildium.standin.permissions import checked, is_denied
from connectors.buildium.standin.portfolio import LEASE, LISTING, PROPERTY, TENANT, UNIT, Portfolio
from connectors.buildium.standin.queries import Query, Refusal, check_names, select, window
from connectors.buildium.standin.rendering import account_json, owner_json
from connectors.buildium.standin.writes import Invalid, write
from schemas.base import EntityKind

MOST_ROWS: Final = 1000
"""Buildium reduces a larger limit to this without an error."""

DEMO_ID: Final = "demo-client-id"
DEMO_SECRET: Final = "demo-client-secret"  # noqa: S105 - a secret of the stand-in only

_LISTS: Final = {
    "/v1/rentals": PROPERTY,
    "/v1/rentals/units": UNIT,
    "/v1/leases": LEASE,
    "/v1/leases/tenants": TENANT,
    "/v1/rentals/units/listings": LISTING,
}
_ENTITIES: Final = (
    (re.compile(r"/v1/rentals/(\d{1,10})"), PROPERTY, "property"),
    (re.compile(r"/v1/rentals/units/(\d{1,10})"), UNIT, "unit"),
    (re.compile(r"/v1/leases/(\d{1,10})"), LEASE, "lease"),
    (re.compile(r"/v1/leases/tenants/(\d{1,10})"), TENANT, "tenant"),
    (re.compile(r"/v1/rentals/units/(\d{1,10})/listing"), LISTING, "listing"),
)


@dataclass(slots=True)
class Fault:
    """A planned fault of the next ``times`` calls whose path matches: a delay, another answer, or both."""

    path: str = ".*"
    times: int = 1
    status: int | None = None
    """Null: the regular answer, after ``seconds``."""
    seconds: float = 0.0
    retry_after: str | None = None
    body: bytes | None = None
    method: str | None = None
    """Null: any."""
    lost: bool = False
    """Whether the call is made all the same, and only its answer is lost."""
    message: str = "The service is currently unavailable."

    def fits(self, method: str, path: str) -> bool:
        """Return whether a call is affected."""
        return self.method in (None, method) and re.fullmatch(self.path, path) is not None


@dataclass(frozen=True, slots=True)
class Call:
    """An answered call."""

    method: str
    path: str
    query: str
    status: int
    at: float


@dataclass(slots=True)
class RateLimit:
    """The limit on concurrent calls, and on starts within ``window`` seconds; more are answered with 429."""

    in_flight: int = 10
    starts: int = 10
    window: float = 1.0
    _running: int = 0
    _starts: deque[float] = field(default_factory=deque)

    def enter(self, now: float) -> bool:
        while self._starts and now - self._starts[0] >= self.window:
            self._starts.popleft()
        if self._running >= self.in_flight or len(self._starts) >= self.starts:
            return False
        self._starts.append(now)
        self._running += 1
        return True

    def leave(self) -> None:
        self._running -= 1


class BuildiumStandIn:
    """An ASGI app that serves one portfolio like Buildium.

    ``latency`` delays every answer, in seconds; ``faults`` apply in their order; ``calls`` records the calls.
    ``denied`` has the permissions that the API key lacks: to view (``listings``) or to edit (``properties:edit``).
    """

    def __init__(
        self,
        portfolio: Portfolio,
        *,
        client_id: str = DEMO_ID,
        client_secret: str = DEMO_SECRET,
        limit: RateLimit | None = None,
        latency: float = 0.0,
        denied: Iterable[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.portfolio = portfolio
        self.client_id = client_id
        self.client_secret = client_secret
        self.limit = limit
        self.latency = latency
        self.denied = checked(denied)
        self.most_rows = MOST_ROWS
        """The most rows of a page, whatever the limit that is asked for."""
        self.total_count: str | None = ""
        """``X-Total-Count`` of every list; empty: the number of its rows, null: there is no such header."""
        self.hidden: frozenset[int] = frozenset()
        """Units that lists do not show, although they exist."""
        self.faults: list[Fault] = []
        self.calls: deque[Call] = deque(maxlen=10_000)
        self.throttled = 0
        self._monotonic = monotonic
        methods = ["GET", "POST", "PUT", "DELETE"]
        self.app = Starlette(routes=[Route("/{path:path}", self._serve, methods=methods)])

    def deny(self, *permissions: str) -> None:
        """Replace the permissions that the API key lacks. Raise `ValueError` if one of them does not exist."""
        self.denied = checked(permissions)

    def fail(self, status: int | None = None, *, times: int = 1, path: str = ".*", **more: object) -> None:
        """Plan a fault for the next calls to ``path``, a regular expression."""
        self.faults.append(Fault(path, times, status, **more))  # type: ignore[arg-type]

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        await self.app(scope, receive, send)  # type: ignore[arg-type]

    async def _serve(self, request: Request) -> Response:
        allowed = self.limit is None or self.limit.enter(self._monotonic())
        try:
            if not allowed:
                self.throttled += 1
                response = _error(429, "Too many requests.")
            else:
                response = await self._answer_or_fail(request)
        finally:
            if allowed and self.limit:
                self.limit.leave()
        response.headers["x-amzn-RequestId"] = str(uuid4())
        query = request.url.query
        self.calls.append(Call(request.method, request.url.path, query, response.status_code, self._monotonic()))
        return response

    async def _answer_or_fail(self, request: Request) -> Response:
        fault = next((one for one in self.faults if one.fits(request.method, request.url.path)), None)
        if fault:
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
        delay = self.latency + (fault.seconds if fault else 0.0)
        if delay:
            await asyncio.sleep(delay)
        if fault is None or (fault.status is None and fault.body is None):
            # A caller that is gone has no body any more, and its reads count as calls all the same.
            return self._answer(request, b"" if request.method == "GET" else await request.body())
        if fault.lost:
            self._answer(request, b"" if request.method == "GET" else await request.body())
        response = (
            _error(fault.status or 200, fault.message)
            if fault.body is None
            else Response(fault.body, fault.status or 200, media_type="text/html")
        )
        if fault.retry_after:
            response.headers["retry-after"] = fault.retry_after
        return response

    def _answer(self, request: Request, body: bytes) -> Response:
        key = (request.headers.get("x-buildium-client-id"), request.headers.get("x-buildium-client-secret"))
        if key != (self.client_id, self.client_secret):
            return _error(401, "The API key is invalid or missing.")
        if len(request.url.query) > 4096:
            return _error(500, "The query string is too long.")
        if is_denied(request.method, request.url.path, self.denied):
            return _error(403, "The API key does not have permission to perform the request.")
        try:
            return self._read(request.url.path, request) if request.method == "GET" else self._write(request, body)
        except Invalid as invalid:
            return _error(invalid.status, invalid.message, invalid.errors)
        except Refusal as refusal:
            return _error(refusal.status, refusal.message) if refusal.message else _no_such_path()

    def _write(self, request: Request, body: bytes) -> Response:
        content_type = request.headers.get("content-type", "")
        written = write(self.portfolio, request.method, request.url.path, content_type, body)
        return Response(written.body, written.status, media_type="application/json" if written.body else None)

    def _read(self, path: str, request: Request) -> Response:
        if path in _SINGLE:
            return _SINGLE[path](self.portfolio)
        if path == "/v1/rentals/owners":
            page, total = list_owners(self.portfolio, _query(request))
            return _json(page, {"X-Total-Count": str(total)})
        if found := re.fullmatch(r"/v1/rentals/owners/(\d{1,10})", path):
            return _owner(self.portfolio, int(found[1]))
        if path in _LISTS:
            return self._list(_LISTS[path], request)
        for pattern, kind, word in _ENTITIES:
            if found := pattern.fullmatch(path):
                return self._entity(kind, int(found[1]), word)
        return _no_such_path()

    def _list(self, kind: EntityKind, request: Request) -> Response:
        query = _query(request)
        check_names(kind, query)
        offset, limit = window(query)
        ids = select(self.portfolio, kind, query)
        if kind is EntityKind.UNIT and self.hidden:
            ids = [number for number in ids if number not in self.hidden]
        row = self.portfolio.row
        wanted = ids[offset : offset + min(limit, self.most_rows)]
        body = b"[" + b",".join([row(kind, number) for number in wanted]) + b"]"
        count = self.total_count
        return _json(body, None if count is None else {"X-Total-Count": count or str(len(ids))})

    def _entity(self, kind: EntityKind, number: int, word: str) -> Response:
        if number not in self.portfolio.entities(kind):
            key = "unit id" if kind is EntityKind.LISTING else "id."
            return _error(404, f"No {word} found with the {key}")
        return _json(self.portfolio.row(kind, number))


def _account(portfolio: Portfolio) -> Response:
    return _json(json.dumps(account_json(portfolio)).encode())


def _bank_accounts(portfolio: Portfolio) -> Response:
    rows = [{"Id": number, "Name": "Operating", "IsActive": True} for number in portfolio.bank_accounts]
    return _json(json.dumps(rows).encode(), {"X-Total-Count": str(len(rows))})


_SINGLE: Final[Mapping[str, Callable[[Portfolio], Response]]] = {
    "/v1/administration/account": _account,
    "/v1/bankaccounts": _bank_accounts,
}
"""Paths without parameters."""


def _owner(portfolio: Portfolio, number: int) -> Response:
    if number not in portfolio.owners:
        return _error(404, "No rental owner found with the id.")
    return _json(json.dumps(owner_json(portfolio, number)).encode())


def _query(request: Request) -> Query:
    return {name: request.query_params.getlist(name) for name in request.query_params}


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type="application/json", headers=headers)


def _error(status: int, message: str, errors: Sequence[object] = ()) -> Response:
    """Return an ``ApiErrorResponse``; its error code is null, as in every known answer of Buildium."""
    error: dict[str, object] = {"UserMessage": message, "ErrorCode": None, "Errors": list(errors)}
    return Response(json.dumps(error), status, media_type="application/json")


def _no_such_path() -> Response:
    return Response("Not Found. URL paths and parameter names are case-sensitive.", 404, media_type="text/plain")
