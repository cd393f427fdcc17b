"""A call or a redeliver as a service of the Faust worker: started once the tables are there, stopped before they go."""

from typing import Any, Protocol

import mode


class Runnable(Protocol):
    """Works until it is stopped, and raises where nothing more may be acknowledged."""

    async def run(self) -> None: ...

    async def stop(self) -> None: ...


class RunnerService(mode.Service):  # type: ignore[misc]
    """Runs one shell; its crash is a crash of the worker."""

    def __init__(self, shell: Runnable, **kwargs: Any) -> None:
        self._shell = shell
        super().__init__(**kwargs)

    @mode.Service.task  # type: ignore[untyped-decorator]
    async def _run(self) -> None:
        await self._shell.run()

    async def on_stop(self) -> None:
        """Let it finish what is in flight, and commit."""
        await self._shell.stop()
