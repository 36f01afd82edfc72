"""python -m train.evaluate --workdir DIR [--step last|best|N] [--weights ema|raw]"""

from __future__ import annotations

import argparse

from train import processes
from train.commands import Parser, add_checkpoint_flags, parse_step, run_command


def main() -> int:
    parser = Parser(
        prog="python -m train.evaluate",
        description="Evaluates a run's checkpoint on its evaluation split, every image once.",
        allow_abbrev=False,
    )
    add_checkpoint_flags(parser)
    processes.add_flags(parser)
    flags = parser.parse_args()
    processes.connect(flags)
    return processes.run(lambda: run(flags))


def run(flags: argparse.Namespace) -> int:
    """Evaluates, once the processes have found each other."""
    step = parse_step(flags.step)

    from train.evaluation import evaluate_run
    from train.metrics import to_json

    ema = None if flags.weights is None else flags.weights == "ema"
    result = evaluate_run(flags.workdir, step, ema)
    if processes.is_first():
        print(to_json(result), flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
