"""Faust made safe and fast: membership, assignment and keyed state with a changelog, and nothing lost.

The only package that knows Faust's inside. See docs/decisions.md for what is touched and why.
"""

from streams.engine.engine import Engine, EngineCrashed, Status, run_worker
from streams.engine.fatal import Exit, Fatal
from streams.engine.settings import EngineSettings
from streams.engine.stores import NotHeld
from streams.engine.tables import TableHandle

__all__ = [
    "Engine",
    "EngineCrashed",
    "EngineSettings",
    "Exit",
    "Fatal",
    "NotHeld",
    "Status",
    "TableHandle",
    "run_worker",
]
