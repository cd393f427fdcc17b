"""``/openapi.json``, made from a table of routes, so that it names what exists and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Response:
    """One answer that a route may give."""

    description: str
    schema: str | None = None
    """Name of its body's schema; errors are problems."""
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """One route as the outside sees it."""

    path: str
    method: str
    operation: str
    summary: str
    description: str
    responses: Mapping[int, Response]
    parameters: tuple[str, ...] = ()
    body: str | None = None
    """Name of the schema of its body."""


SCHEMAS: Final[Mapping[str, Any]] = {
    "Received": {
        "type": "object",
        "required": ["received", "event"],
        "properties": {
            "received": {"const": True},
            "event": {"type": "string", "examples": ["Rental.Updated"]},
        },
    },
    "WebhookEvent": {
        "type": "object",
        "description": "The event as the system sends it; its signature is verified over the bytes as they came.",
        "required": ["EventName"],
        "properties": {
            "EventName": {"type": "string", "examples": ["Rental.Updated"]},
            "EventDateTime": {"type": "string", "format": "date-time"},
            "AccountId": {"type": "integer"},
        },
        "additionalProperties": True,
    },
    "Problem": {
        "type": "object",
        "description": "Problem details (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                },
            },
        },
    },
}

PARAMETERS: Final[Mapping[str, Any]] = {
    "system": {
        "name": "system",
        "in": "path",
        "required": True,
        "description": "The property management system, such as `buildium`.",
        "schema": {"type": "string"},
    },
    "connection": {
        "name": "connection",
        "in": "path",
        "required": True,
        "description": "The connection that the subscription was made for, where a system has several.",
        "schema": {"type": "string"},
    },
    "timestamp": {
        "name": "buildium-webhook-timestamp",
        "in": "header",
        "required": False,
        "description": "Buildium: when it was sent, as a UNIX time; at most five minutes ago.",
        "schema": {"type": "string"},
    },
    "signature": {
        "name": "buildium-webhook-signature",
        "in": "header",
        "required": False,
        "description": "Buildium: base64 of the HMAC-SHA256 over `timestamp.body` with the subscription's secret.",
        "schema": {"type": "string"},
    },
}

HEADERS: Final[Mapping[str, Any]] = {
    "X-Request-ID": {
        "description": "The request's own id if it brought a usable one, else a new one.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "Allow": {"description": "The methods that are allowed.", "schema": {"type": "string"}},
}

_WEBHOOK_RESPONSES: Final[Mapping[int, Response]] = {
    202: Response("Verified and durable; a duplicate is answered like the first.", "Received"),
    400: Response("Not JSON, or not an event."),
    401: Response("Not signed, wrongly signed, or signed too long ago."),
    404: Response("No such system or connection."),
    405: Response("Another method than POST.", headers=("Allow",)),
    408: Response("The body did not arrive in time."),
    413: Response("The body is larger than 256 KiB."),
    500: Response("Our own mistake; it is logged under the request's id."),
    503: Response("Not durable in time; send it again.", headers=("Retry-After",)),
}


def _webhook(path: str, operation: str, whose: str, parameters: tuple[str, ...]) -> Route:
    return Route(
        path=path,
        method="post",
        operation=operation,
        summary=f"Take a webhook of {whose}",
        description="Answers only once the event is durable. What changed is then fetched from the system.",
        responses=_WEBHOOK_RESPONSES,
        parameters=(*parameters, "timestamp", "signature"),
        body="WebhookEvent",
    )


ROUTES: Final[Sequence[Route]] = (
    _webhook("/api/webhooks/{system}", "receiveWebhook", "a system's first connection", ("system",)),
    _webhook(
        "/api/webhooks/{system}/{connection}",
        "receiveWebhookOfConnection",
        "one connection of a system",
        ("system", "connection"),
    ),
)


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Make the OpenAPI document of these routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "RentStream", "version": version},
        "paths": paths,
        "components": {"schemas": dict(SCHEMAS), "parameters": dict(PARAMETERS), "headers": dict(HEADERS)},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "description": route.description,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in route.parameters],
        "responses": {str(status): _response(response) for status, response in route.responses.items()},
    }
    if route.body:
        operation["requestBody"] = {"required": True, "content": _content("application/json", route.body)}
    return operation


def _response(response: Response) -> dict[str, Any]:
    kind = "application/json" if response.schema else "application/problem+json"
    return {
        "description": response.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *response.headers)},
        "content": _content(kind, response.schema or "Problem"),
    }


def _content(kind: str, schema: str) -> dict[str, Any]:
    return {kind: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
