"""A stand-in of RentSync: a local receiver with strict validation, for the demo, the tests and the benchmarks.

The behaviour of the real receiver is not public. This one checks requests against the documented examples and the
drafts that the documentation refers to: a wrong key is answered with 401, an invalid body with 422 and a pointer to
each invalid member, a repeated ``Idempotency-Key`` with the first result, and the same key with another body with 422.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from connectors.ports import Clock

PATH: Final = "/v1/rent-roll/sync"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105 -- a path
SIGNED_WITHIN: Final = 300
"""Seconds by which the time of a signature may differ (Standard Webhooks 1.0.0)."""
MOST_BYTES: Final = 32 * 1024 * 1024
KEYS_KEPT: Final = 100_000

# -------------------------------------------------------------------------------------------------------------- state


@dataclass(frozen=True, slots=True)
class Delivery:
    """An accepted request: the time of its arrival and its content."""

    at: datetime
    sync_id: str
    key: str
    mode: str
    user_agent: str
    body: Mapping[str, Any]

    @property
    def project(self) -> int:
        """The id of the property, which is in another place in each shape."""
        match shape_of(self.body):
            case "property":
                return int(self.body["property"]["project_id"])
            case "flat":
                return int(self.body["units"][0]["property_id"])
        return int(_wholes(self.body)[0]["project_id"])

    @property
    def units(self) -> list[Mapping[str, Any]]:
        """The units as shape `property` has them."""
        if shape_of(self.body) != "unit":
            return list(self.body["units"])
        return [
            {
                "unit_id": unit["unit_id"],
                "unit_code": unit["unit_code"],
                "status_name": unit["status"]["name"],
                "is_available": unit["availability"]["is_available"],
                "base_rent": unit["pricing"]["base_rent"],
            }
            for unit in _wholes(self.body)
        ]


@dataclass(frozen=True, slots=True)
class Listed:
    """The current listing of a unit."""

    project_id: int
    unit_id: int
    unit_code: str
    status_name: str
    is_available: bool
    base_rent: float | None
    at: datetime
    sync_id: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A planned fault of one request: an error status, a delay or a broken connection."""

    status: int | None = None
    retry_after: str | None = None
    seconds: float = 0.0
    drop: bool = False
    """Whether the request is accepted and the connection is closed before the response is complete."""
    body: bytes | None = None
    """The body of the response, with ``status``; null: problem details."""
    unit: int | None = None
    """Only a request that contains this unit fails; null: any."""

    def applies(self, body: bytes) -> bool:
        """Return whether a request with this body fails."""
        return self.unit is None or re.search(rb'"unit_id":\s*%d\b' % self.unit, body) is not None


@dataclass(slots=True)
class Access:
    """The credentials that the stand-in takes, of one scheme of `connectors.rentsync.auth`."""

    scheme: str = "api-key"
    token: str = ""
    token_header: str = "X-Auth-Token"  # noqa: S105 -- the name of a header
    hmac_secrets: tuple[str, ...] = ()
    """A signature with any of them is valid."""
    client_id: str = ""
    client_secret: str = ""
    scope: str = ""
    lifetime: float = 3600.0
    """Seconds for which an issued token is valid."""
    issued: dict[str, float] = field(default_factory=dict)
    """The end of each issued token, by `Clock.monotonic`."""
    asked: int = 0
    """How often a token was asked for."""
    token_status: int = 200
    """What the token endpoint answers."""


@dataclass(frozen=True, slots=True)
class _First:
    """The first result of an ``Idempotency-Key``, with the fingerprint of the request body."""

    fingerprint: bytes
    status: int
    answer: Mapping[str, Any]


@dataclass(slots=True)
class _State:
    accepted: list[Delivery] = field(default_factory=list)
    listings: dict[int, Listed] = field(default_factory=dict)
    units: dict[int, set[int]] = field(default_factory=dict)
    """The units of each property."""
    statuses: list[int] = field(default_factory=list)
    firsts: dict[str, _First] = field(default_factory=dict)


# ----------------------------------------------------------------------------------------------------------- responses


class _Truncated(Response):
    """A response with a shorter body than its length, so that the server has to close the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


def _problem(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


class RentSyncStandIn:
    """Accepts batches of every shape, keeps them in memory, and fails as planned.

    Each request consumes one planned fault, in the order of planning.
    """

    def __init__(self, api_key: str, clock: Clock, access: Access | None = None) -> None:
        """``access``: the credentials that are taken; null: an API key only."""
        self.access = access or Access()
        self.api_key = api_key
        """The only key that is taken; a test may replace it."""
        self._clock = clock
        self._faults: deque[Fault] = deque()
        self._stored = _State()
        self._waiting: list[asyncio.Future[None]] = []
        self.app = Starlette(
            routes=[
                Route(PATH, self._sync, methods=["POST"]),
                Route(PATH, self._other, methods=["OPTIONS", "HEAD", "GET"]),
                Route("/v1/rent-roll", self._roll, methods=["GET"]),
                Route(TOKEN_PATH, self._token, methods=["POST"]),
            ]
        )

    # ---------------------------------------------------------------------------------------------------- inspection

    @property
    def accepted(self) -> list[Delivery]:
        """Return the accepted requests without repetitions, in the order of arrival."""
        return self._stored.accepted

    @property
    def state(self) -> Mapping[int, Listed]:
        """Return the current listing of each unit, by its id."""
        return self._stored.listings

    @property
    def statuses(self) -> list[int]:
        """Return the status of each response in order; 0 for a connection that was closed instead."""
        return self._stored.statuses

    def save(self, path: Path) -> None:
        """Write the listings to a file, for `restore`; requests and idempotency keys are not included."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{**asdict(unit), "at": unit.at.isoformat()} for unit in self._stored.listings.values()]
        path.write_text(json.dumps(rows), encoding="utf-8")

    def restore(self, path: Path) -> None:
        """Restore the listings of a file that `save` wrote; do nothing if it is absent or cannot be read."""
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            listed = [Listed(**{**row, "at": datetime.fromisoformat(row["at"])}) for row in rows]
        except (OSError, ValueError, TypeError, KeyError):
            return
        self._stored.listings.update({unit.unit_id: unit for unit in listed})

    async def wait_for(self, predicate: Callable[[Self], bool], timeout: float) -> None:  # noqa: ASYNC109
        """Wait until ``predicate`` is true, which is checked after each request. Raise `TimeoutError`."""
        async with asyncio.timeout(timeout):
            while not predicate(self):
                arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(arrival)
                await arrival

    def _arrived(self) -> None:
        waiting, self._waiting = self._waiting, []
        for arrival in waiting:
            arrival.get_loop().call_soon_threadsafe(_wake, arrival)

    # ---------------------------------------------------------------------------------------------------------- faults

    def plan(self, fault: Fault, times: int = 1) -> None:
        """Let the next ``times`` requests fail in this way."""
        self._faults.extend([fault] * times)

    def answer_next(self, status: int, times: int = 1, retry_after: str | None = None) -> None:
        """Answer the next requests with this status."""
        self.plan(Fault(status, retry_after), times)

    def delay_next(self, seconds: float, times: int = 1) -> None:
        """Delay the responses to the next requests."""
        self.plan(Fault(seconds=seconds), times)

    def drop_next(self, times: int = 1) -> None:
        """Accept the next requests, but close the connection before the response is complete."""
        self.plan(Fault(drop=True), times)

    def recover(self) -> None:
        """Remove the faults that are still planned."""
        self._faults.clear()

    # --------------------------------------------------------------------------------------------------------- routes

    async def _roll(self, request: Request) -> Response:
        del request
        units = [
            {
                "project_id": unit.project_id,
                "unit_id": unit.unit_id,
                "unit_code": unit.unit_code,
                "status_name": unit.status_name,
                "is_available": unit.is_available,
                "base_rent": unit.base_rent,
                "received_at": unit.at.isoformat(),
                "sync_id": unit.sync_id,
            }
            for unit in sorted(self._stored.listings.values(), key=lambda unit: (unit.project_id, unit.unit_id))
        ]
        return JSONResponse({"requests": len(self._stored.accepted), "units": units})

    async def _other(self, request: Request) -> Response:
        """Answer a method that delivers nothing, after a check of the key. It consumes no planned fault."""
        refused = self._refused(request, b"")
        if refused is not None and refused.status_code == 401:
            return refused
        headers = {"Allow": "OPTIONS, POST"}
        if request.method == "OPTIONS":
            return Response(None, 204, headers)
        return _problem(405, "Method Not Allowed", "Rent rolls are sent here with POST.", headers)

    async def _sync(self, request: Request) -> Response:
        body = await request.body()
        fault = next((one for one in self._faults if one.applies(body)), None)
        if fault is None:
            fault = Fault()
        else:
            self._faults.remove(fault)
        if fault.seconds:
            await self._clock.sleep(fault.seconds)
        response: Response
        if fault.status is not None and fault.body is not None:
            response = Response(fault.body, fault.status)
        elif fault.status is not None:
            wait = {"Retry-After": fault.retry_after} if fault.retry_after is not None else None
            response = _problem(fault.status, "Planned", "This answer was planned.", wait)
        else:
            response = self._accept(request, body)
            if fault.drop:
                response = _Truncated()
        self._stored.statuses.append(0 if isinstance(response, _Truncated) else response.status_code)
        self._arrived()
        return response

    def _accept(self, request: Request, body: bytes) -> Response:
        refused = self._refused(request, body)
        if refused is not None:
            return refused
        key = _key(request)
        if key is None:
            return _problem(400, "Bad Request", "The header Idempotency-Key is required, a string in quotes.")
        fingerprint = hashlib.sha256(body).digest()
        first = self._stored.firsts.get(key)
        if first is None:
            return self._accept_new(request, key, fingerprint, body)
        if first.fingerprint != fingerprint:
            return _problem(422, "Idempotency-Key reused", "This Idempotency-Key was used with another body before.")
        return JSONResponse(first.answer, first.status, {"Idempotent-Replayed": "true"})

    def _refused(self, request: Request, body: bytes) -> Response | None:
        if why := self._denied(request, body):
            return _problem(401, "Unauthorized", why)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _problem(415, "Unsupported Media Type", "The body has to be application/json.")
        if len(body) > MOST_BYTES:
            return _problem(413, "Content Too Large", f"A body has at most {MOST_BYTES} bytes.")
        return None

    def _denied(self, request: Request, body: bytes) -> str | None:
        """Return why a request is not authenticated; null if it is."""
        given, access = request.headers, self.access
        match access.scheme:
            case "bearer":
                valid = _equal(given.get("authorization", ""), f"Bearer {access.token or self.api_key}")
                return None if valid else "The header Authorization does not contain a valid token."
            case "static-token":
                valid = _equal(given.get(access.token_header, ""), access.token)
                return None if valid else f"The header {access.token_header} does not contain a valid token."
            case "hmac":
                return _unsigned(given, body, access.hmac_secrets, self._clock.now().timestamp())
            case "oauth2":
                token = given.get("authorization", "").removeprefix("Bearer ")
                valid = self._clock.monotonic() < access.issued.get(token, float("-inf"))
                return None if valid else "The token is unknown, or has expired."
        valid = _equal(given.get("x-api-key", ""), self.api_key)
        return None if valid else "The header X-API-Key does not contain a valid key."

    async def _token(self, request: Request) -> Response:
        """Issue a token for client credentials (RFC 6749, 4.4)."""
        form = dict(parse_qsl((await request.body()).decode("latin-1")))
        access = self.access
        access.asked += 1
        if access.token_status != 200:
            return JSONResponse({"error": "invalid_client"}, access.token_status)
        if not _equal(_client(request.headers.get("authorization", "")), f"{access.client_id}:{access.client_secret}"):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form.get("grant_type") != "client_credentials" or form.get("scope", "") != access.scope:
            return JSONResponse({"error": "invalid_scope"}, 400)
        token = f"token-{len(access.issued) + 1}-{access.client_id}"
        access.issued[token] = self._clock.monotonic() + access.lifetime
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": access.lifetime})

    def _accept_new(self, request: Request, key: str, fingerprint: bytes, body: bytes) -> Response:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return _problem(400, "Bad Request", "The body is not JSON.")
        sync_id = request.headers.get("x-aigent-sync-id", "")
        mode = request.headers.get("x-aigent-sync-mode", "")
        errors = [{"pointer": pointer, "detail": detail} for pointer, detail in problems(content)]
        named = content.get("sync_metadata", {}).get("sync_id", sync_id) if not errors else sync_id
        if sync_id != named:
            errors.append({"pointer": "#/sync_metadata/sync_id", "detail": "differs from the header X-Aigent-Sync-ID"})
        if mode not in {"snapshot", "delta"}:
            errors.append({"pointer": "#", "detail": "the header X-Aigent-Sync-Mode has to be snapshot or delta"})
        if errors:
            return _problem(422, "Unprocessable Content", "The body is not a rent roll.", errors=errors)
        delivery = Delivery(self._clock.now(), sync_id, key, mode, request.headers.get("user-agent", ""), content)
        self._list(delivery)
        answer = {"received": True, "sync_id": sync_id, "units": len(delivery.units)}
        if len(self._stored.firsts) >= KEYS_KEPT:
            self._stored.firsts.pop(next(iter(self._stored.firsts)))
        self._stored.firsts[key] = _First(fingerprint, 200, answer)
        self._stored.accepted.append(delivery)
        return JSONResponse(answer)

    def _list(self, delivery: Delivery) -> None:
        """Apply a delivery: a snapshot replaces all units of its property, a delta only the units that it contains."""
        listings = self._stored.listings
        if delivery.mode == "snapshot":
            for unit_id in self._stored.units.pop(delivery.project, set()):
                listings.pop(unit_id, None)
        units = self._stored.units.setdefault(delivery.project, set())
        for unit in delivery.units:
            units.add(unit["unit_id"])
            listings[unit["unit_id"]] = Listed(
                delivery.project,
                unit["unit_id"],
                unit["unit_code"],
                unit["status_name"],
                unit["is_available"],
                unit["base_rent"],
                delivery.at,
                delivery.sync_id,
            )


def _key(request: Request) -> str | None:
    """Return the value of ``Idempotency-Key``, a string in the syntax of RFC 8941; null if it is absent or invalid."""
    found = re.fullmatch(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"', request.headers.get("idempotency-key", ""))
    return found and found[1]


def _client(authorization: str) -> str:
    """Return client id and secret of a header, each of which is form-encoded in it (RFC 6749, 2.3.1)."""
    try:
        text = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
    except ValueError:
        return ""
    return ":".join(unquote_plus(part) for part in text.split(":"))


def _equal(given: str, right: str) -> bool:
    return bool(right) and hmac.compare_digest(given.encode(), right.encode())


def _unsigned(given: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> str | None:
    """Return why a request has no valid signature (Standard Webhooks 1.0.0); null if it has one."""
    message, stamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message or not stamp.isdigit():
        return "The headers webhook-id and webhook-timestamp are required."
    if abs(now - int(stamp)) > SIGNED_WITHIN:
        return "The webhook-timestamp is too old, or in the future."
    signed = f"{message}.{stamp}.".encode() + body
    for secret in secrets:
        key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
        right = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if any(_equal(one, f"v1,{right}") for one in given.get("webhook-signature", "").split()):
            return None
    return "The header webhook-signature does not contain a valid signature."


def _wake(arrival: "asyncio.Future[None]") -> None:
    if not arrival.done():
        arrival.set_result(None)


# ------------------------------------------------------------------------------------------------- validation of bodies

_STATUSES: Final = ("Available", "Rented", "Unavailable", "Removed")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


Rule = tuple[Callable[[object], bool], str]

_TEXT: Final[Rule] = (_is_text, "has to be a string")
_FILLED: Final[Rule] = (lambda value: isinstance(value, str) and bool(value.strip()), "has to be a non-empty string")
_INTEGER: Final[Rule] = (_is_integer, "has to be a whole number")
_OBJECT: Final[Rule] = (lambda value: isinstance(value, dict), "has to be an object")

_KNOWN_OR_NULL: Final[Rule] = (lambda value: value is None or _is_text(value), "has to be a string or null")
_NUMBER: Final[Rule] = (
    lambda value: value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0),
    "has to be a number that is not negative, or null",
)
_BOOLEAN: Final[Rule] = (lambda value: isinstance(value, bool), "has to be true or false")
_BOOLEAN_OR_NULL: Final[Rule] = (lambda value: value is None or isinstance(value, bool), "has to be a boolean or null")

_BODY: Final[Mapping[str, Rule]] = {
    "sync_metadata": _OBJECT,
    "property": _OBJECT,
    "units": (lambda value: isinstance(value, list), "has to be an array"),
}
_METADATA: Final[Mapping[str, Rule]] = {
    "sync_id": (
        lambda value: (
            isinstance(value, str) and bool(re.fullmatch(r"sync-\d{4}(-\d\d){5}(-[1-9]\d*)?", value, re.ASCII))
        ),
        "has to look like sync-2025-01-15-02-00-00",
    ),
    "sync_timestamp": (
        lambda value: (
            isinstance(value, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value, re.ASCII))
        ),
        "has to look like 2025-01-15T02:00:00Z",
    ),
    "source": _FILLED,
}
_PROPERTY: Final[Mapping[str, Rule]] = {"project_id": _INTEGER, "project_name": _FILLED, "address": _TEXT}
_UNIT: Final[Mapping[str, Rule]] = {
    "unit_id": _INTEGER,
    "unit_code": _TEXT,
    "status_name": (lambda value: value in _STATUSES, f"has to be one of {', '.join(_STATUSES)}"),
    "is_available": _BOOLEAN,
    "base_rent": _NUMBER,
}
_MORE: Final[Mapping[str, Rule]] = {
    "building": _TEXT,
    "type": _TEXT,
    "dwelling_type": _TEXT,
    "status_id": (lambda value: value in {1, 2, 3, 4}, "has to be a number from 1 to 4"),
    "when_available": _TEXT,
    "price_amortized": _NUMBER,
    "size_sqft": _INTEGER,
    "bedrooms": _NUMBER,
    "bathrooms": _NUMBER,
    "view": _TEXT,
    "has_garage": _BOOLEAN,
    "pets_allowed": _INTEGER,
}
"""Members that a unit may have besides those of the examples."""

_FLAT_BODY: Final[Mapping[str, Rule]] = {"sync_timestamp": _METADATA["sync_timestamp"], "units": _BODY["units"]}
_FLAT_UNIT: Final[Mapping[str, Rule]] = {
    "property_id": _INTEGER,
    **_UNIT,
    **{name: _MORE[name] for name in ("status_id", "bedrooms", "bathrooms")},
}
_UNITS_BODY: Final[Mapping[str, Rule]] = {"sync_metadata": _OBJECT, "units": _BODY["units"]}
_WHOLE: Final[Mapping[str, Rule]] = {
    "unit_id": _INTEGER,
    "project_id": _INTEGER,
    "project_name": _FILLED,
    "property_address": _TEXT,
    "unit_code": _TEXT,
    "building": _KNOWN_OR_NULL,
    "floor": _NUMBER,
    "floorplan": _KNOWN_OR_NULL,
    "type": _KNOWN_OR_NULL,
    "dwelling_type": _KNOWN_OR_NULL,
    "status": _OBJECT,
    "availability": _OBJECT,
    "pricing": _OBJECT,
    "specifications": _OBJECT,
    "attributes": _OBJECT,
    "sync_timestamp": _METADATA["sync_timestamp"],
}
_PARTS: Final[Mapping[str, Mapping[str, Rule]]] = {
    "status": {"id": _MORE["status_id"], "name": _UNIT["status_name"]},
    "availability": {"is_available": _BOOLEAN, "when_available": _KNOWN_OR_NULL},
    "pricing": {"base_rent": _NUMBER, "price_amortized": _NUMBER},
    "specifications": {"size_sqft": _NUMBER, "bedrooms": _NUMBER, "bathrooms": _NUMBER, "dens": _NUMBER},
    "attributes": {
        "exposure": _KNOWN_OR_NULL,
        "view": _KNOWN_OR_NULL,
        "has_garage": _BOOLEAN_OR_NULL,
        "pets_allowed": _NUMBER,
    },
}
"""The objects within a unit of shape `unit`."""


def shape_of(body: Mapping[str, Any]) -> str:
    """Return the shape that a body has, or would have if it were valid."""
    if "property" in body:
        return "property"
    if "sync_timestamp" in body and "units" in body:
        return "flat"
    if "unit_id" in body or ("sync_metadata" in body and "units" in body):
        return "unit"
    return "property"


def _wholes(body: Mapping[str, Any]) -> list[Any]:
    """Return the units of a body of shape `unit`, of which one alone is the body."""
    return [body] if "unit_id" in body else list(body["units"])


def problems(body: object) -> Iterator[tuple[str, str]]:
    """Yield the errors of a body of any shape: a JSON pointer and the end of a sentence for each member."""
    if not isinstance(body, dict):
        yield "#", "has to be an object"
        return
    shape = shape_of(body)
    if shape == "unit" and "unit_id" in body:
        yield from _whole_unit(body, "#")
        return
    yield from _members(body, {"property": _BODY, "flat": _FLAT_BODY, "unit": _UNITS_BODY}[shape], "#")
    more: Mapping[str, Rule] = {"mode": _TEXT, "unit_count": _INTEGER}
    for name, rules, optional in (
        ("sync_metadata", _METADATA, more),
        ("property", _PROPERTY, {"is_actived": _BOOLEAN}),
    ):
        if isinstance(body.get(name), dict):
            yield from _members(body[name], rules, f"#/{name}", optional)
    units = body.get("units")
    seen: set[object] = set()
    for index, unit in enumerate(units if isinstance(units, list) else ()):
        where = f"#/units/{index}"
        if not isinstance(unit, dict):
            yield where, "has to be an object"
            continue
        if shape == "unit":
            yield from _whole_unit(unit, where)
        else:
            yield from _members(unit, _UNIT if shape == "property" else _FLAT_UNIT, where, _MORE)
        unit_id = unit.get("unit_id")
        if _is_integer(unit_id) and unit_id in seen:
            yield f"{where}/unit_id", "is not unique"
        seen.add(str(unit_id) if not _is_integer(unit_id) else unit_id)


def _whole_unit(unit: Mapping[str, object], where: str) -> Iterator[tuple[str, str]]:
    yield from _members(unit, _WHOLE, where)
    for name, rules in _PARTS.items():
        part = unit.get(name)
        if isinstance(part, dict):
            yield from _members(part, rules, f"{where}/{name}")


def _members(
    body: Mapping[str, object], rules: Mapping[str, Rule], where: str, optional: Mapping[str, Rule] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the errors of an object whose members are those of ``rules`` and some of ``optional``."""
    optional = optional or {}
    rules = {**rules, **{name: rule for name, rule in optional.items() if name in body}}
    for name, (is_valid, error) in rules.items():
        if name not in body:
            yield f"{where}/{name}", "is missing"
        elif not is_valid(body[name]):
            yield f"{where}/{name}", error
    for name in (name for name in body if name not in rules):
        yield f"{where}/{name.replace('~', '~0').replace('/', '~1')}", "is not a known member"
