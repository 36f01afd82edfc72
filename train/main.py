"""python -m train.main --config FILE [--workdir DIR] [--config.KEY=VALUE …]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import ml_collections

from train.config import loading
from train.runtime import distributed
from train.runtime.cli import (
    Parser,
    add_config_flag,
    chosen_workdir,
    run_command,
    set_up,
    split_overrides,
)
from train.runtime.errors import UsageError
from train.runtime.signals import STOPPED, StopRequest


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ml_collections.ConfigDict, str]:
    """The flags, the whole configuration and the workdir. Raises UsageError."""
    parser = Parser(
        "train.main",
        description="Trains what a config says, or continues it: the same command resumes.",
        epilog="keys of a config, their defaults and meanings:\n" + loading.describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_flag(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", help="where the run lives; default: runs/NAME of the config"
    )
    distributed.add_flags(parser)
    others, overrides = split_overrides(arguments)
    flags = parser.parse_args(others)
    config = loading.load_config(flags.config, overrides)
    workdir = chosen_workdir(flags.workdir, flags.config, config)
    if config.smoke and distributed.wanted(flags):
        raise UsageError("config.smoke=True is for one process")
    return flags, config, workdir


def main() -> int:
    flags, config, workdir = parse(sys.argv[1:])
    set_up(config)
    distributed.connect(flags)
    return distributed.run(lambda: run(config, workdir))


def run(config: ml_collections.ConfigDict, workdir: str) -> int:
    """Trains, once the processes have found each other."""
    with StopRequest() as stop:
        # Only now what takes a second to import: a typing error is told at once.
        from train.loop import Interrupted, train
        from train.workdir.metrics_log import to_json

        try:
            result = train(config, workdir, stop)
        except Interrupted as interrupted:
            print(f"stopped by {interrupted}; the same command continues", file=sys.stderr)
            return STOPPED
    if distributed.is_primary():
        print(to_json(result), flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
