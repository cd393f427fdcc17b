"""Validation of requests to the stand-in that would create an entity, by the required fields of Buildium's messages.

The stand-in is read-only: a valid body is answered with 501.
"""

import json
from collections.abc import Mapping
from typing import Final

from connectors.buildium.standin.queries import Refusal

REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "/v1/rentals": ("Name", "Address", "RentalSubType", "OperatingBankAccountId"),
    "/v1/rentals/owners": ("IsCompany", "Address", "PropertyIds"),
}
"""The required fields of ``RentalPropertyPostMessage`` and ``RentalOwnerPostMessage``, by path."""


class Invalid(Refusal):
    """A body that is answered with 422 and an error for each absent field."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__(422, "The request data is invalid.")
        self.errors = tuple({"Key": field, "Value": f"The {field} field is required."} for field in fields)


def check_body(path: str, content_type: str, body: bytes) -> None:
    """Validate a request body like Buildium. Raise `Refusal`, or `Invalid` if required fields are absent."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "The Content-Type header is missing or has an unsupported value.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request body is not valid JSON.") from None
    if not isinstance(content, dict):
        raise Refusal(400, "The request body is not an object.")
    absent = tuple(field for field in REQUIRED[path] if content.get(field) in (None, "", []))
    if absent:
        raise Invalid(absent)
