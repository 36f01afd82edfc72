"""python -m train.evaluate --workdir DIR [--step last|best|N] [--weights ema|raw]"""

from __future__ import annotations

import argparse

from train import processes
from train.commands import Parser, run_command
from train.errors import UsageError


def main() -> int:
    parser = Parser(
        prog="python -m train.evaluate",
        description="Evaluates a run's checkpoint on its evaluation split, every image once.",
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--step", default="last", metavar="last|best|N", help="which checkpoint; default: last"
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="the moving average or the weights themselves; default: as eval.ema says",
    )
    processes.add_flags(parser)
    flags = parser.parse_args()
    processes.connect(flags)
    return processes.run(lambda: run(flags))


def run(flags: argparse.Namespace) -> int:
    """Evaluates, once the processes have found each other."""
    if flags.step not in ("last", "best") and not flags.step.isdigit():
        raise UsageError(f"--step must be last, best or a number of steps, not {flags.step!r}")
    step = int(flags.step) if flags.step.isdigit() else flags.step

    from train.evaluation import evaluate_run
    from train.metrics import to_json

    ema = None if flags.weights is None else flags.weights == "ema"
    result = evaluate_run(flags.workdir, step, ema)
    if processes.is_first():
        print(to_json(result), flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
