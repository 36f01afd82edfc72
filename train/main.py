"""Train or resume: python -m train.main --config FILE [--workdir DIR] [--config.KEY=VALUE …]."""

import argparse
import contextlib
import sys
from collections.abc import Sequence

from train.config import loading
from train.runtime import cli, distributed
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import UsageError
from train.runtime.imports import without_collection
from train.runtime.signals import STOPPED, StopRequest


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, ConfigDict, str]:
    """Return the flags, the complete configuration and the workdir; raise UsageError."""
    parser = cli.Parser(
        "train.main",
        description="Train a model as configured. The same command resumes an interrupted run.",
        epilog="configuration keys, their defaults and meanings:\n" + keys_help(arguments),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_config_flag(parser)
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of the run; default: runs/NAME of the config file"
    )
    distributed.add_flags(parser)
    others, overrides = cli.split_overrides(arguments)
    flags = parser.parse_args(others)
    config = loading.load_config(flags.config, overrides)
    workdir = cli.resolve_workdir(flags.workdir, flags.config, config)
    if config.smoke and distributed.is_multiprocess(flags):
        raise UsageError("config.smoke=True runs in a single process only")
    return flags, config, workdir


def keys_help(arguments: Sequence[str]) -> str:
    """Return the list of keys for ``--help``, with those of the recipe in ``arguments``."""
    if not {"-h", "--help"} & set(arguments):
        return ""
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    finder.add_argument("--config")
    owner = None
    with contextlib.suppress(UsageError, argparse.ArgumentError):
        if recipe := finder.parse_known_args(arguments)[0].config:
            owner = loading.owner_of(recipe)
    return loading.describe(owner)


def main() -> int:
    """Run the command; return the exit status."""
    flags, config, workdir = parse(sys.argv[1:])
    cli.configure_jax(config)
    distributed.connect(flags)
    return distributed.run_collectively(lambda: run(config, workdir))


def run(config: ConfigDict, workdir: str) -> int:
    """Train, after all processes are connected; return the exit status."""
    with StopRequest() as stop:
        with without_collection():
            # Imported late, since it takes a second: usage errors appear at once.
            from train.loop import Interrupted, train
            from train.workdir.metrics_log import to_json

        try:
            result = train(config, workdir, stop)
        except Interrupted as interrupted:
            print(f"stopped by {interrupted}; run the same command to resume", file=sys.stderr)
            return STOPPED
    if distributed.is_primary():
        print(to_json(result), flush=True)
    return 0


if __name__ == "__main__":
    cli.run_command(main)
