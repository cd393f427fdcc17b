"""How often a scan looks at all accounts of a partition, of which there may be a thousand."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """Lets a scan look at once after a configuration has changed, and else at an interval."""

    every: float
    """Seconds between two looks."""
    _looked: dict[int, tuple[int, float]] = field(default_factory=dict, init=False)
    """By partition: the state of the directory at the last look, and when that was."""

    def is_due(self, partition: int, configured: int, at: float) -> bool:
        """Return whether to look now.

        ``configured`` grows with every change of a configuration; ``at`` is a time of `Clock.monotonic`.
        """
        before, looked = self._looked.get(partition, (-1, at))
        return before != configured or at - looked >= self.every

    def looked(self, partition: int, configured: int, at: float) -> None:
        """Note that a look that began then is complete: one that is cut short begins again."""
        self._looked[partition] = configured, at
