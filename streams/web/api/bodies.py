"""Bodies of requests: limited in size, and strictly JSON."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from streams.web.api.problems import parse
from streams.web.ingress import ClientDisconnected, TooLarge, read_body


class JsonRequest(Request):
    """A request whose body is limited and strictly JSON."""

    most_bytes: ClassVar[int] = 64 * 1024

    async def body(self) -> bytes:
        """Read the body once. Raise 413 if it is too large."""
        if not hasattr(self, "_body"):
            try:
                self._body = await read_body(self.scope, self.receive, self.most_bytes)
            except TooLarge:
                raise HTTPException(413, f"A body has at most {self.most_bytes // 1024} KiB.") from None
            except ClientDisconnected:
                raise HTTPException(400, "The body did not arrive.") from None
        return self._body

    async def json(self) -> Any:
        """Return what the body holds.

        FastAPI parses bodies before it resolves dependencies. A caller without a valid token must get an error about
        the token only, so a body that is not JSON becomes a value (`streams.web.api.problems.NotJson`) that fits no
        model.
        """
        return parse(await self.body())


class JsonRoute(APIRoute):
    """A route that reads its body as a `JsonRequest`, and whose answers are for the caller alone."""

    request_class: ClassVar[type[JsonRequest]] = JsonRequest

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return FastAPI's handler over such a request."""
        handle: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def handler(request: Request) -> Response:
            response = await handle(self.request_class(request.scope, request.receive))
            response.headers["Cache-Control"] = "no-store"
            return response

        return handler
