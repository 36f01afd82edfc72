"""python -m train.compare RUN… [--output FILE]"""

from __future__ import annotations

import os
import sys

from train.runtime.cli import Parser, run_command
from train.runtime.errors import RunError, UsageError, warn


def main() -> int:
    parser = Parser(
        "train.compare",
        description="Compares runs: a table here, and a page with curves and the keys that differ."
        " Runs that differ in their seed only are told together, mean ± sample deviation.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the runs' folders")
    parser.add_argument(
        "--output", default="compare.html", metavar="FILE", help="default: compare.html"
    )
    flags = parser.parse_args()
    if not flags.output.endswith((".html", ".htm")):
        raise UsageError(f"--output must name an .html file, not {flags.output!r}")
    return compare(flags.runs, flags.output)


def compare(paths: list[str], output: str) -> int:
    """Compares those that can be read; 1 where another was named."""
    from train.compare import comparison

    runs, status = [], 0
    places = {os.path.realpath(path): os.path.normpath(path) for path in reversed(paths)}
    for path in reversed(places.values()):
        try:
            runs.append(comparison.read(path))
        except RunError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    if not runs:
        raise RunError("none of these can be compared")
    comparison.name_apart(runs)
    comparison.remark_same_seeds(runs)
    for run in runs:
        if run.remark:
            warn(f"{run.path!r} {run.remark}")
    print(comparison.as_text(runs))
    comparison.write(output, runs)
    print(f"written      {output}")
    return status


if __name__ == "__main__":
    run_command(main)
