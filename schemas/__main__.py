"""``python -m schemas``: commits today's writers to ``schemas/avsc``; ``--check`` only says what is missing."""

import json
import sys
from pathlib import Path

from schemas.avro import schema_of
from schemas.codec import RECORDS, head_of

AVSC = Path(__file__).parent / "avsc"


def main(check: bool) -> int:
    """Write (or look for) one file for each record and fingerprint; return the exit code."""
    missing = 0
    for record in RECORDS:
        schema = schema_of(record)
        path = AVSC / record.__name__ / f"{head_of(schema)[2:].hex()}.avsc"
        text = json.dumps(schema, indent=1) + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        missing += 1
        print(f"{'not committed' if check else 'new'}: {path.relative_to(AVSC.parent)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return 1 if check and missing else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
