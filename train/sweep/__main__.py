"""Train a recipe with several values of keys: python -m train.sweep --config RECIPE --grid …."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence

from train.config import loading
from train.runtime import cli, distributed
from train.runtime.errors import UsageError
from train.runtime.signals import StopRequest
from train.sweep.definition import Definition, define, is_in


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Definition]:
    """Return the flags, with the workdir, and the sweep; raise UsageError."""
    parser = cli.Parser(
        "train.sweep",
        description="Train a recipe with several values of some keys and several seeds, one run"
        " after another in one process, and compare the runs. The same command continues an"
        " interrupted sweep. Keys of all runs are set by --config.KEY=VALUE.",
    )
    cli.add_config_flag(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of the sweep; default: runs/NAME_sweep"
    )
    parser.add_argument(
        "--grid",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="values of a key; several keys are combined in all ways. Semicolons separate values"
        " that contain commas",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="seeds of each combination; default: 1"
    )
    parser.add_argument(
        "--search", choices=("optuna",), help="search the space for the best evaluation"
    )
    parser.add_argument(
        "--space",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=RANGE",
        help="what to search: LOW..HIGH, log:LOW..HIGH, or values as for --grid",
    )
    parser.add_argument("--trials", type=int, metavar="N", help="combinations that a search tries")
    distributed.add_flags(parser)
    others, overrides = cli.split_overrides(arguments)
    flags = parser.parse_args(others)
    check_flags(flags)
    definition = define(flags.config, overrides, flags.grid, flags.space, flags.seeds)
    config = loading.load_config(flags.config, overrides)
    workdir = cli.resolve_workdir(flags.workdir, flags.config, config)
    flags.workdir = os.path.normpath(workdir if flags.workdir else f"{workdir}_sweep")
    is_in(flags.workdir, definition)
    return flags, definition


def check_flags(flags: argparse.Namespace) -> None:
    """Raise UsageError for flags that are missing or exclude each other."""
    if distributed.is_multiprocess(flags):
        raise UsageError("a sweep runs in a single process, with all devices of that")
    if flags.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {flags.seeds}")
    if flags.search is None:
        if flags.space or flags.trials is not None:
            raise UsageError("--space and --trials belong to a search; add --search optuna")
        if not flags.grid and flags.seeds == 1:
            raise UsageError("there is nothing to vary; give --grid, --seeds or --search")
        return
    if flags.grid:
        raise UsageError("--grid and --search exclude each other; put all keys into --space")
    if not flags.space or flags.trials is None or flags.trials < 1:
        raise UsageError("--search needs --space KEY=RANGE and --trials N, at least 1")
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("--search optuna needs Optuna: pip install 'flax-resnet[optuna]'")


def main() -> int:
    """Run the command; return the exit status."""
    flags, definition = parse(sys.argv[1:])
    cli.configure_jax(definition.config({}))
    with StopRequest() as stop:
        # Imported late, since it takes a second: usage errors appear at once.
        from train.sweep import runs

        return runs.sweep(definition, flags.workdir, flags.trials, stop)


if __name__ == "__main__":
    cli.run_command(main)
