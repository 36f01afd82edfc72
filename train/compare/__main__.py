"""Compare runs: python -m train.compare RUN… [--output FILE]."""

import os

from train.runtime.cli import Parser, add_trust_flag, run_command
from train.runtime.errors import RunError, UsageError, print_error, print_line, warn
from train.workdir.trained_run import use_recipe


def main() -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "train.compare",
        description="Compare runs: print their results, the best first, and the keys that differ,"
        " and write a page with their curves. Runs that differ only in the seed are summarized as"
        " mean ± sample standard deviation. Of two runs, the differences by class and by image are"
        " shown, with McNemar's test; of more, those of the two best configurations.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="workdirs of the runs")
    parser.add_argument(
        "--output", default="compare.html", metavar="FILE", help="page; default: compare.html"
    )
    add_trust_flag(parser)
    flags = parser.parse_args()
    if not flags.output.endswith((".html", ".htm")):
        raise UsageError(f"--output must be an .html file, not {flags.output!r}")
    return compare(flags.runs, flags.output, flags.trust_recipe)


def compare(paths: list[str], output: str, trust_recipe: bool) -> int:
    """Compare all readable runs; return 1 if another one was given."""
    from train.compare import page
    from train.compare.comparison import as_text, compare_runs
    from train.compare.grouping import mark_duplicates
    from train.compare.runs import disambiguate_names, read

    runs, status = [], 0
    places = {os.path.realpath(path): os.path.normpath(path) for path in reversed(paths)}
    for path in reversed(places.values()):
        try:
            use_recipe(path, trust_recipe)
            runs.append(read(path))
        except (RunError, UsageError) as error:
            if len(places) == 1 and isinstance(error, UsageError):
                raise
            print_error(error)
            status = 1
    if not runs:
        raise RunError("none of these runs can be compared")
    disambiguate_names(runs)
    mark_duplicates(runs)
    for run in runs:
        if run.remark:
            warn(f"{run.path!r} {run.remark}")
    comparison = compare_runs(runs)
    page.write(output, comparison)  # before the output, whose reader may end early
    print(as_text(comparison))
    print_line(f"written      {output}")
    return status


if __name__ == "__main__":
    run_command(main)
