"""python -m train.plan --config FILE [--workdir DIR] [--output DIR] [--config.KEY=VALUE …]"""

from __future__ import annotations

import argparse
import os
import sys

import ml_collections

from train.config import loading
from train.runtime.cli import (
    Parser,
    add_config_flag,
    configure_jax,
    resolve_workdir,
    run_command,
    split_overrides,
)


def main() -> int:
    parser = Parser(
        "train.plan",
        description="Says what a run would need and what would fail, before hours are spent: does"
        " its first steps elsewhere, and measures. Status 1 where it would fail.",
    )
    add_config_flag(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", help="of the run, which stays as it is; default: as train.main"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="for the pictures; default: the workdir's name and _plan"
    )
    arguments, overrides = split_overrides(sys.argv[1:])
    flags = parser.parse_args(arguments)
    config = loading.load_config(flags.config, overrides)
    workdir = resolve_workdir(flags.workdir, flags.config, config)
    output = flags.output or workdir.rstrip("/") + "_plan"
    configure_jax(config)
    return run(argparse.Namespace(config=config, workdir=workdir, output=output))


def run(flags: argparse.Namespace) -> int:
    """Plans, and prints the plan as one line of JSON at the end."""
    import json

    from train.plan.estimate import plan

    config: ml_collections.ConfigDict = flags.config
    found = plan(config, flags.workdir, os.path.abspath(flags.output))
    for problem in found["problems"]:
        print(f"error: would fail: {problem}", file=sys.stderr, flush=True)
    print(json.dumps(found), flush=True)
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    run_command(main)
