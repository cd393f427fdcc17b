# ruff: noqa: INP001 -- a script, not part of a package
"""Generate ``docs/topology.md`` from the dataflow; ``--check`` verifies that the committed one is current."""

import sys
from pathlib import Path

from streams.settings import RentStreamSettings
from streams.topology import markdown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "topology.md"

if __name__ == "__main__":
    text = markdown(RentStreamSettings().delays)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/topology.md does not match streams/topology.py; run `make docs` and commit it")
