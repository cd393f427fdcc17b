"""Errors as problem details (RFC 9457): what happened, where, and what to do; never the value in the request."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from connectors.ports import FieldError
from streams.directory.model import Conflict, IntegrationError, Invalid, NotFound, Unavailable
from streams.web.answers import Answer, problem
from streams.web.api.access import parts_of

RETRY_AFTER: Final = (b"retry-after", b"5")
UNEXPECTED: Final = "The request met a mistake of the server; it is logged under the request's id. Try again later."

Location = tuple[str | int, ...]
"""Where pydantic found an error."""


# ------------------------------------------------------------------------------------------------- what may not be JSON


@dataclass(frozen=True, slots=True)
class NotJson:
    """Stands for a body that cannot be parsed, until the token was checked."""

    why: str


def parse(body: bytes) -> Any:
    """Return the JSON value of a body: strict UTF-8 and RFC 8259 (no NaN, no lone surrogates, no endless nesting)."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        # Only the position is used: the message of the parser may quote the body.
        place = re.search(r"line (\d+) column (\d+)", str(error))
        return NotJson(f" (line {place[1]}, column {place[2]})" if place else "")


# ------------------------------------------------------------------------------------------------------- error messages

_WORDS: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is unknown; check its spelling",
    "string_type": "must be a text",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "finite_number": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "datetime_type": "must be a time such as 2026-03-01T12:00:00Z",
    "datetime_parsing": "must be a time such as 2026-03-01T12:00:00Z",
    "datetime_from_date_parsing": "must be a time such as 2026-03-01T12:00:00Z",
}
"""By pydantic's type of error."""

_WORDS_WITH_CONTEXT: Final[Mapping[str, str]] = {
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} entries",
    "decimal_max_places": "must have at most {decimal_places} decimal places",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}
"""The same, completed with what the class demands."""


def message(error: Mapping[str, Any]) -> str:
    """Return the message of an error as the end of a sentence; it never contains the value in the request."""
    kind = str(error["type"])
    if kind == "string_too_short" and error.get("ctx", {}).get("min_length") == 1:
        return "must not be empty"
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in _WORDS_WITH_CONTEXT:
        return _WORDS_WITH_CONTEXT[kind].format_map(error.get("ctx", {}))
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    return "is not valid"


def pointer(location: Location, body: Any) -> str:
    """Return the JSON pointer of an error.

    pydantic names branches of unions and marks keys in its locations: what is not in the body is skipped, except for
    the last part, which may be the member that is missing.
    """
    parts: list[str] = []
    for number, part in enumerate(location):
        if _has(body, part):
            parts.append(str(part))
            body = body[part]
        elif number == len(location) - 1 and isinstance(body, dict) and not _is_mark(part):
            parts.append(str(part))
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _has(body: Any, part: str | int) -> bool:
    if isinstance(body, dict):
        return part in body
    return isinstance(body, list) and isinstance(part, int) and 0 <= part < len(body)


def _is_mark(part: str | int) -> bool:
    return isinstance(part, int) or (part[:1], part[-1:]) in {("[", "]"), ("(", ")")}


# -------------------------------------------------------------------------------------------------------------- answers


def _response(answer: Answer) -> Response:
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


def of_fields(errors: Sequence[FieldError], parameters: Sequence[str] = ()) -> Answer:
    """Return 422 with every member of the body that is wrong; parameters are named in the detail."""
    sentences = list(parameters)
    if errors:
        sentences.append("1 member of the body is" if len(errors) == 1 else f"{len(errors)} members of the body are")
        sentences[-1] += " wrong; `errors` names each."
    return problem(422, " ".join(sentences), errors=[(error.pointer, error.detail) for error in errors])


def of_validation(error: RequestValidationError) -> Answer:
    """Return 415, 400 or 422 for a request whose parameters or body do not fit."""
    if isinstance(error.body, bytes):
        return problem(415, "The body must be JSON: send it with Content-Type: application/json.")
    if isinstance(error.body, NotJson):
        return problem(400, f"The body is not valid JSON{error.body.why}.")
    fields: dict[FieldError, None] = {}
    parameters: list[str] = []
    for one in error.errors():
        source, *location = one["loc"]
        if source == "body":
            fields[FieldError(pointer(tuple(location), error.body), message(one))] = None
        else:
            parameters.append(f"The {source} parameter {location[0]} {message(one)}.")
    return of_fields(list(fields), parameters)


def of_integration_error(error: IntegrationError) -> Answer:
    """Return the answer to what the store of integrations refused."""
    if isinstance(error, Invalid):
        return of_fields(error.errors)
    if isinstance(error, NotFound):
        return problem(404, str(error))
    if isinstance(error, Conflict):
        return problem(409, str(error))
    if isinstance(error, Unavailable):
        return problem(503, str(error), (RETRY_AFTER,))
    raise error


def unexpected() -> Answer:
    """Return 500, without a word about the inside."""
    return problem(500, UNEXPECTED)


# ------------------------------------------------------------------------------------------------------------- handlers


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answer a request that does not fit its route."""
    del request
    assert isinstance(error, RequestValidationError)
    return _response(of_validation(error))


async def on_integration_error(request: Request, error: Exception) -> Response:
    """Answer a request that the store of integrations refused."""
    del request
    assert isinstance(error, IntegrationError)
    return _response(of_integration_error(error))


async def on_reused_key(request: Request, error: Exception) -> Response:
    """Answer a request whose idempotency key belongs to another one."""
    del request
    return _response(problem(422, str(error)))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer with the status and the detail of the exception; 404 and 405 of the router have their own detail."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:100]
    detail = {404: f"There is nothing at {path!r}.", 405: f"{path!r} does not take {request.method[:20]!r}."}.get(
        error.status_code, error.detail
    )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The router names the methods of the first route of that path only.
        headers["Allow"] = parts_of(request).document.allowed(request.scope["path"])
    encoded = tuple((name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers.items())
    return _response(problem(error.status_code, detail, encoded))


async def on_unexpected(request: Request, error: Exception) -> Response:
    """Answer after an unexpected exception; `streams.web.api.app` logs it."""
    del request, error
    return _response(unexpected())
