"""What the stand-in answers to requests that create something: which fields it asks for, as Buildium's messages do.

Nothing is created yet: a body that has all it needs is answered with 501.
"""

import json
from collections.abc import Mapping
from typing import Final

from connectors.buildium.standin.queries import Refusal

REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/rentals": ("Name", "Address", "RentalSubType", "OperatingBankAccountId"),
    "/v1/rentals/owners": ("IsCompany", "Address", "PropertyIds"),
}
"""Paths that take a POST, and the fields that ``RentalPropertyPostMessage`` and ``RentalOwnerPostMessage`` require."""


class Invalid(Refusal):
    """A body that is answered with 422 and a word on each field."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__(422, "The request data is invalid.")
        self.errors = tuple({"Key": field, "Value": f"The {field} field is required."} for field in fields)


def check_body(path: str, content_type: str, body: bytes) -> None:
    """Refuse what Buildium refuses. Raise `Refusal`, or `Invalid` if required fields are absent."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The Content-Type header is missing or has an unsupported value.")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    if not isinstance(given, dict):
        raise Refusal(400, "The request body is not an object.")
    absent = tuple(field for field in REQUIRED[path] if given.get(field) in (None, "", []))
    if absent:
        raise Invalid(absent)
