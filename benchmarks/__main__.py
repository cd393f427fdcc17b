"""``python -m benchmarks [--quick] [name ...]``: run the benchmarks and print a table of results and targets."""

import subprocess
import sys
import time
import traceback
from collections.abc import Callable

from benchmarks import change, fold, latency, recovery, sweep
from benchmarks.kit import Result, broker, parser, show

BENCHMARKS: dict[str, Callable[..., list[Result]]] = {
    "latency": latency.run,
    "change": change.run,
    "fold": fold.run,
    "recovery": recovery.run,
    "sweep": sweep.run,
}

SEPARATE: dict[str, tuple[str, ...]] = {
    "ingress": ("--seconds", "2", "--turns", "1"),
    "engine": ("--records", "100000", "--stock-records", "5000", "--rows", "100000"),
    "view": ("--units", "5000", "--rate", "100", "--seconds", "3"),
    "fleet": ("--orgs", "20", "--units", "200", "--minutes", "0.5", "--changes", "20"),
}
"""Benchmarks that print their own table, and their arguments for a quick run."""


def run_one(name: str, bootstrap: str | None, *, quick: bool) -> list[Result]:
    if name in SEPARATE:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *(SEPARATE[name] if quick else ())], check=True)
        return []
    # Each benchmark gets its own broker, so that data of one does not slow down the next.
    with broker(bootstrap) as servers:
        return BENCHMARKS[name](servers, quick=quick)


def main() -> int:
    names = (*BENCHMARKS, *SEPARATE)
    arguments = parser(__doc__)
    arguments.add_argument("only", nargs="*", help=f"benchmarks to run (default: all): {', '.join(names)}")
    options = arguments.parse_args()
    if unknown := {*options.only} - {*names}:
        arguments.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    results: list[Result] = []
    failed = []
    for name in options.only or names:
        started = time.monotonic()
        print(f"\n=== {name}", flush=True)
        try:
            results += run_one(name, options.bootstrap, quick=options.quick)
        except Exception:
            traceback.print_exc()
            failed.append(name)
        print(f"({time.monotonic() - started:.0f} s)", flush=True)
    show(results)
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
