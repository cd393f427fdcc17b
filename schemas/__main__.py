"""``python -m schemas``: writes today's schemas to ``schemas/avsc``; ``--check`` fails if one is missing."""

import json
import sys
from pathlib import Path
from typing import Any

from schemas.avro import schema_of
from schemas.codec import RECORDS, head_of

AVSC = Path(__file__).parent / "avsc"


def main(check: bool) -> int:
    """Write (or look for) one file for each record and fingerprint; return the exit code."""
    missing = refused = 0
    for record in RECORDS:
        schema = schema_of(record)
        path = AVSC / record.__name__ / f"{head_of(schema)[2:].hex()}.avsc"
        text = json.dumps(schema, indent=1) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if path.exists() and _meaning(json.loads(path.read_text(encoding="utf-8"))) != _meaning(schema):
            refused += 1
            print(f"refused: {path.relative_to(AVSC.parent)} has the same fingerprint and another meaning; add a field")
            continue
        missing += 1
        print(f"{'not committed' if check else 'new'}: {path.relative_to(AVSC.parent)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if refused or (check and missing) else 0


def _meaning(schema: Any) -> Any:
    """Return a schema without its defaults, which do not affect a writer's bytes (a fingerprint omits a scale too)."""
    if isinstance(schema, list):
        return [_meaning(one) for one in schema]
    if isinstance(schema, dict):
        return {key: _meaning(value) for key, value in schema.items() if key != "default"}
    return schema


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
