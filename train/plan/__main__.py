"""Command: ``python -m train.plan --config FILE [--workdir DIR] [--output DIR]``."""

import json
import os
import sys

from train.config import loading
from train.runtime.cli import (
    Parser,
    add_config_flag,
    configure_jax,
    resolve_workdir,
    run_command,
    split_overrides,
)
from train.runtime.errors import print_error


def main() -> int:
    """Run the command and return its exit status: 1 if the run would fail."""
    parser = Parser(
        "train.plan",
        description="Estimate the memory, time and largest batch of a run by measuring its first"
        " steps, and report what would fail. The exit status is 1 if the run would fail.",
    )
    add_config_flag(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", help="workdir of the run, not changed; default: as train.main"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the images; default: the workdir's name + _plan"
    )
    arguments, overrides = split_overrides(sys.argv[1:])
    flags = parser.parse_args(arguments)
    config = loading.load_config(flags.config, overrides)
    workdir = resolve_workdir(flags.workdir, flags.config, config)
    output = flags.output or workdir.rstrip("/") + "_plan"
    configure_jax(config)
    from train.plan.estimate import plan  # imports JAX, which takes a second

    result = plan(config, workdir, os.path.abspath(output))
    for problem in result["problems"]:
        print_error(f"would fail: {problem}")
    print(json.dumps(result), flush=True)
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    run_command(main)
