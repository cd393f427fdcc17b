"""Reading the body of an answer: the receiver's error text, and failures behind a status of success.

The guide for RentSync does not describe the body of an answer, so the usual forms of web frameworks are read.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from pydantic import SecretStr

from connectors.checks import mask
from connectors.http import Reply

MAX_EXPLANATION: Final = 400
"""Characters of the receiver's error text that are kept."""
_MAX_ERRORS: Final = 5

_FLAGS: Final = ("success", "ok", "accepted")
"""Members that are false if the request failed."""
_FAILED: Final = frozenset({"error", "errors", "fail", "failed", "failure", "rejected", "invalid"})
"""Values of ``status`` or ``result`` of a request, or of one of its ``results``, that failed."""


def explanation(reply: Reply, hide: Sequence[SecretStr] = ()) -> str:
    """Return the error text in a JSON body of a 4xx, short and on one line; empty if there is none.

    It is read in the forms of problem details (RFC 9457), FastAPI, ASP.NET and similar. The secrets in ``hide`` are
    masked, so that a receiver that repeats one does not bring it into logs and records.
    """
    return _words(_json(reply.body), hide) if 400 <= reply.status < 500 else ""


def denial(reply: Reply, hide: Sequence[SecretStr] = ()) -> str | None:
    """Return why an answer with a status of success is none, as a clause; null if it is one.

    That is an HTML page, which a proxy or a login page sends, or JSON with a plain failure. An empty body, text and
    other JSON are a success.
    """
    body = reply.body.lstrip()
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and (kind in {"text/html", "application/xhtml+xml"} or body.startswith(b"<")):
        return "with a page instead of a confirmation: a proxy may have answered"
    content = _json(body)
    if not isinstance(content, dict) or not (kind == "application/problem+json" or _failed(content)):
        return None
    words = _words(content, hide)
    return "the body reports a failure" + (f": {words}" if words else "")


def _failed(content: dict[str, Any]) -> bool:
    if any(content.get(name) is False for name in _FLAGS) or content.get("error") or content.get("errors"):
        return True
    if any(_is_failure(content.get(name)) for name in ("status", "result")):
        return True
    results = content.get("results")
    return any(isinstance(one, dict) and _failed(one) for one in results) if isinstance(results, list) else False


def _is_failure(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _FAILED
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(content: Any, hide: Sequence[SecretStr]) -> str:
    if not isinstance(content, dict):
        return ""
    text = mask("; ".join(one for one in _texts(content) if one), hide)
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable if len(printable) <= MAX_EXPLANATION else printable[: MAX_EXPLANATION - 1] + "…"


def _texts(content: dict[str, Any]) -> Iterator[str]:
    names = ("detail", "message", "error", "title")
    head = next((content[name] for name in names if _is_text(content.get(name))), None)
    if head is not None:
        yield head
    found = (_details(content.get(name)) for name in ("errors", "detail", "error", "results"))
    yield from islice((text for details in found for text in details), _MAX_ERRORS)


def _details(errors: object) -> Iterator[str]:
    """Yield the single errors of a list (FastAPI, RFC 9457), or of an object by field (ASP.NET)."""
    if isinstance(errors, dict):
        for name, texts in errors.items():
            for text in texts if isinstance(texts, list) else [texts]:
                if _is_text(text):
                    yield text if name in {"message", "detail"} else f"{name}: {text}"
    for error in errors if isinstance(errors, list) else ():
        if _is_text(error):
            yield error
        elif isinstance(error, dict):
            place = [error.get(name) for name in ("pointer", "field", "unit_id")]
            location = error.get("loc")
            if isinstance(location, list):
                place.append(".".join(str(part) for part in location))
            words = [error.get(name) for name in ("detail", "message", "msg", "error")]
            parts = [str(part).strip() for part in (*place, *words) if isinstance(part, str | int)]
            yield " ".join(part for part in parts if part)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
