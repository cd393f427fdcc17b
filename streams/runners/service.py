"""The service of the Faust worker that runs a call or a redeliver, from the recovery of the tables to the shutdown."""

from typing import Any, Protocol

import mode


class Runnable(Protocol):
    """A runner that works until it is stopped, and raises if no more offsets may be committed."""

    async def run(self) -> None: ...

    async def stop(self) -> None: ...


class RunnerService(mode.Service):  # type: ignore[misc]
    """Runs one runner; an exception of the runner stops the worker."""

    def __init__(self, runner: Runnable, **kwargs: Any) -> None:
        self._runner = runner
        super().__init__(**kwargs)

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _run(self) -> None:
        await self._runner.run()

    async def on_stop(self) -> None:
        """Let the runner finish the records in flight and commit."""
        await self._runner.stop()
