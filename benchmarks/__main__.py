"""``python -m benchmarks [--quick] [name ...]``: every benchmark after the other, and one table of what has an aim."""

import subprocess
import sys
import time
import traceback
from collections.abc import Callable

from benchmarks import fold, latency, recovery, sweep
from benchmarks.kit import Figure, broker, parser, show

BENCHMARKS: dict[str, Callable[..., list[Figure]]] = {
    "latency": latency.run,
    "fold": fold.run,
    "recovery": recovery.run,
    "sweep": sweep.run,
}

APART: dict[str, tuple[str, ...]] = {
    "ingress": ("--seconds", "2", "--turns", "1"),
    "engine": ("--records", "100000", "--stock-records", "5000", "--rows", "100000"),
}
"""Those that print a table of their own, and the arguments under which they measure less."""


def one(name: str, bootstrap: str | None, *, quick: bool) -> list[Figure]:
    if name in APART:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *(APART[name] if quick else ())], check=True)
        return []
    # A broker of its own each: what one leaves behind is no load on the next.
    with broker(bootstrap) as servers:
        return BENCHMARKS[name](servers, quick=quick)


def main() -> int:
    names = (*BENCHMARKS, *APART)
    taking = parser(__doc__)
    taking.add_argument("only", nargs="*", help=f"all, if none is named: {', '.join(names)}")
    options = taking.parse_args()
    if unknown := {*options.only} - {*names}:
        taking.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    failed = []
    for name in options.only or names:
        began = time.monotonic()
        print(f"\n=== {name}", flush=True)
        try:
            figures += one(name, options.bootstrap, quick=options.quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"({time.monotonic() - began:.0f} s)", flush=True)
    show(figures)
    for name in failed:
        print(f"{name} did not come to its end", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
