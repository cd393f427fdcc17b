# ruff: noqa: INP001 -- a script, not part of a package
"""Writes ``docs/delivery.md`` from the transition table; ``--check`` fails if the committed one is not current."""

import sys
from pathlib import Path

from streams.core.delivery.states import markdown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "delivery.md"

if __name__ == "__main__":
    text = markdown()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/delivery.md does not match streams/core/delivery/states.py; run `make docs` and commit it")
