"""The OpenAPI 3.1 document of everything that port 3000 serves, generated from the routes and their models."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Header, Path
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute, compile_path

from streams.web.api.models import Problem, Received, WebhookEvent

PROBLEM_JSON: Final = "application/problem+json"
NEVER: Final = "never answered"
"""Description of a 422 that is left out; without one FastAPI adds its own to every route with parameters."""

_DETAILS: Final[Mapping[int, tuple[str, str]]] = {
    400: ("A body or header that cannot be read.", "The body is not valid JSON (line 1, column 2)."),
    401: ("No bearer token, or one that is not valid.", "The bearer token is refused: it has expired; get a new one."),
    403: ("The token lacks the scope.", "The bearer token lacks the scope integrations:write."),
    404: ("The org has no such integration.", "The org default has no integration 'buildium'."),
    409: ("The request contradicts what is stored.", "The system of an integration cannot be changed."),
    412: ("The stored version is not the one of If-Match.", "The integration changed; read it again."),
    413: ("The body is too large.", "A body has at most 64 KiB."),
    415: ("The body is not JSON.", "The body must be JSON: send it with Content-Type: application/json."),
    422: (
        "A parameter or members of the body are wrong; every member is named.",
        "1 member of the body is wrong; `errors` names each.",
    ),
    500: ("A mistake of the server; it is logged under the request's id.", "The request met a mistake of the server."),
    503: ("Not possible now; try again.", "The change was not confirmed by Kafka in time."),
}
"""By status: when it is answered, and an example of its detail."""

_HEADERS: Final[Mapping[str, Any]] = {
    "X-Request-ID": {
        "description": "The request's own id if it brought a usable one, else a new one.",
        "schema": {"type": "string"},
    },
    "ETag": {"description": "The version, in quotes, for If-Match.", "schema": {"type": "string"}},
    "Link": {
        "description": "The next page, as rel=next (RFC 8288); absent on the last one.",
        "schema": {"type": "string"},
    },
    "X-As-Of": {
        "description": "Everything that was written before is in the answer; absent before the view was complete.",
        "schema": {"type": "string", "format": "date-time"},
    },
    "Location": {"description": "The integration's path.", "schema": {"type": "string", "format": "uri-reference"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "What is wrong with the token (RFC 6750).", "schema": {"type": "string"}},
}

_HEADER_OF: Final[Mapping[int, str]] = {401: "WWW-Authenticate", 403: "WWW-Authenticate", 503: "Retry-After"}

Responses = dict[int | str, dict[str, Any]]


def headers(*names: str) -> dict[str, Any]:
    """Return references to the headers of that name."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def problems(*statuses: int, **descriptions: str) -> Responses:
    """Return what a route documents of its errors; ``s404="…"`` replaces the description of a status."""
    return {status: _problem(status, descriptions.get(f"s{status}")) for status in statuses}


def _problem(status: int, description: str | None) -> dict[str, Any]:
    usual, detail = _DETAILS.get(status, ("", ""))
    example: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail if description is None else description,
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        example["errors"] = [{"pointer": "/settings/baseUrl", "detail": "must be a text"}]
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    found: dict[str, Any] = {"description": description or usual, "content": {PROBLEM_JSON: content}}
    if status in _HEADER_OF:
        found["headers"] = headers(_HEADER_OF[status])
    return found


# --------------------------------------------------------------------------------------------------------- the webhooks


System = Annotated[str, Path(description="The property management system, such as `buildium`.")]
Timestamp = Annotated[
    str | None,
    Header(
        alias="buildium-webhook-timestamp",
        description="Buildium: when it was sent, as a UNIX time; at most five minutes ago.",
    ),
]
Signature = Annotated[
    str | None,
    Header(
        alias="buildium-webhook-signature",
        description="Buildium: base64 of the HMAC-SHA256 over `timestamp.body` with the subscription's secret.",
    ),
]


async def receive_webhook(
    system: System, event: WebhookEvent, timestamp: Timestamp = None, signature: Signature = None
) -> Received:
    """Verify an event and make it durable, then answer. What changed is fetched from the system afterwards."""
    del system, timestamp, signature
    return Received(event=event.event_name)


async def receive_webhook_of_connection(
    system: System,
    connection: Annotated[str, Path(description="Last part of the `webhookUrl` of an integration.")],
    event: WebhookEvent,
    timestamp: Timestamp = None,
    signature: Signature = None,
) -> Received:
    """Verify an event of one connection and make it durable, then answer."""
    del connection
    return await receive_webhook(system, event, timestamp, signature)


def webhook_routes() -> tuple[APIRoute, ...]:
    """Return the routes of `connectors.ingress`, for the document only: requests to them never come to FastAPI."""
    responses = problems(
        400, 401, 404, 408, 413, 500, 503,
        s400="Not JSON, or not an event.",
        s401="Not signed, wrongly signed, or signed too long ago.",
        s404="No such system or connection.",
        s408="The body did not arrive in time.",
        s413="The body is larger than 256 KiB.",
        s503="Not durable in time; send it again.",
    )  # fmt: skip
    del responses[401]["headers"]  # a signature is no authentication scheme of HTTP
    rows = (
        ("/api/webhooks/{system}", receive_webhook, "receiveWebhook", "Receive a webhook"),
        (
            "/api/webhooks/{system}/{connection}",
            receive_webhook_of_connection,
            "receiveWebhookOfConnection",
            "Receive a webhook of one connection",
        ),
    )
    return tuple(
        APIRoute(
            path,
            endpoint,
            methods=["POST"],
            status_code=202,
            tags=["webhooks"],
            operation_id=operation,
            summary=summary,
            response_description="Verified and durable; a duplicate is answered like the first.",
            responses={**responses, 422: {"description": NEVER}},
        )
        for path, endpoint, operation, summary in rows
    )


# --------------------------------------------------------------------------------------------------------- the document


@dataclass(frozen=True, slots=True)
class Document:
    """The document as it is served, and the methods of every path in it."""

    content: Mapping[str, Any]
    body: bytes
    methods: tuple[tuple[re.Pattern[str], str], ...]

    def allowed(self, path: str) -> str:
        """Return the header Allow of a path."""
        return next((methods for pattern, methods in self.methods if pattern.fullmatch(path)), "")


def document(routes: Sequence[BaseRoute], version: str) -> Document:
    """Generate the document of the routes; what FastAPI cannot express is added."""
    content = get_openapi(
        title="RentStream",
        version=version,
        openapi_version="3.1.0",
        description="Integrations with property management systems and listing receivers, and the webhooks of the "
        "former. Errors are problem details (RFC 9457).",
        routes=routes,
    )
    components = content.setdefault("components", {})
    _, problem = models_json_schema([(Problem, "serialization")], ref_template="#/components/schemas/{model}")
    components["schemas"] = dict(sorted({**components.get("schemas", {}), **problem["$defs"]}.items()))
    components["headers"] = dict(_HEADERS)
    for operations in content["paths"].values():
        for operation in operations.values():
            operation["responses"] = _complete(operation["responses"])
    return Document(content, json.dumps(content).encode(), _methods(content["paths"]))


def _complete(responses: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the responses by status, each with the header that every answer has."""
    return {
        status: {**response, "headers": {**response.get("headers", {}), **headers("X-Request-ID")}}
        for status, response in sorted(responses.items())
        if status != "422" or response["description"] != NEVER
    }


def _methods(paths: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[re.Pattern[str], str], ...]:
    found = []
    for path, operations in paths.items():
        methods = {method.upper() for method in operations} | ({"HEAD"} if "get" in operations else set())
        found.append((compile_path(path)[0], ", ".join(sorted(methods))))
    return tuple(found)
