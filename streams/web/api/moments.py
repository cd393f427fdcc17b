"""Times in requests."""

import re
from typing import Any, Final

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def moment(text: Any) -> Any:
    """Return the text of a time as RFC 3339 has it; pydantic alone also takes numbers. Raise `ValueError`."""
    if isinstance(text, bool | int | float) or (isinstance(text, str) and not _MOMENT.fullmatch(text)):
        raise ValueError("must be a time with its time zone, such as 2026-03-01T12:00:00Z")
    return text
