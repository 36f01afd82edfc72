"""What all commands share: how they end, and what they keep quiet about."""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from train.runtime import compilation_cache, host
from train.runtime.errors import RunError, UsageError, discard_output
from train.runtime.signals import interruptible

if TYPE_CHECKING:  # both import JAX, which takes a second
    import ml_collections

    from flax_resnet.runs import Run


PROGRAM = "flax-resnet"  # the installed command, which train/runtime/entry_point.py runs


class Parser(argparse.ArgumentParser):
    """Parser of one command, which reports a usage error in one line.

    Args:
      module: the command's module; the program is called ``python -m MODULE``, or by the
        installed command if that runs it.
      kwargs: as for ``argparse.ArgumentParser``.
    """

    def __init__(self, module: str, **kwargs):
        installed = sys.argv[0].startswith(f"{PROGRAM} ")
        prog = sys.argv[0] if installed else f"python -m {module}"
        super().__init__(prog=prog, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        """Raise UsageError instead of printing the usage."""
        raise UsageError(f"{message}; see {self.prog} --help")


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, which :func:`train.config.loading.load_config` reads."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="RECIPE",
        help="the name of a recipe, such as resnet20_digits, or the path of one",
    )


def run_command(command: Callable[[], int | None]) -> None:
    """Runs a command and exits: 0 done, 1 an error, 2 wrong usage, or what it returns.

    Errors that are meant for people are told in one line; others keep their traceback.
    """
    host.keep_freed_memory()
    # Libraries' notices are no news to who runs the command; their errors arrive as ours.
    # On CPU XLA's errors, too: where it loads a compiled program, it takes what that was tuned for,
    # such as +prefer-no-gather, for features that the processor lacks (openxla/xla#44565).
    level = "2" if host.has_accelerator() else "3"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    compilation_cache.keep()
    import absl.logging

    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that its cache cannot be written
    sys.unraisablehook = _without_closed_loops
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # × and … must not end a run in a C locale
    try:
        with interruptible(_interrupted):
            status = command() or 0
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except PermissionError as error:
        if error.filename is None:
            raise
        advice = "change its permissions, or name another place"
        print(f"error: no permission for {error.filename!r}; {advice}", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # whoever read the output, such as head, has gone
        discard_output()
        status = 1
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _interrupted()
    sys.stdout.flush()
    sys.exit(status)


def _open_streams() -> None:
    """Where whoever started the command closed them, nothing else must get their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _interrupted() -> None:
    """Ends the process at once: XLA's threads may still compute, and the interpreter's orderly end
    takes away what they use, now and then with a segmentation fault.

    Another thread, or a signal's handler, may call it: it waits for no stream that others hold.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"error: interrupted\n")
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(130)


def _without_closed_loops(what: sys.UnraisableHookArgs) -> None:
    """Keeps quiet of reads and writes that end after Orbax has given up on one of them, which
    TensorStore's threads tell one by one; the error itself comes as an exception.
    """
    if not (what.exc_type is RuntimeError and str(what.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(what)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Separates ``--config.KEY=VALUE`` and ``--config.KEY VALUE`` from other arguments."""
    others: list[str] = []
    overrides: list[tuple[str, str]] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--config."):
            others.append(argument)
            continue
        key, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = next(rest, None)
            if value is None or value.startswith("--"):
                raise UsageError(f"--config.{key} needs a value: --config.{key}=VALUE")
        overrides.append((key, value))
    return others, overrides


def chosen_workdir(flag: str | None, recipe: str, config: ml_collections.ConfigDict) -> str:
    """``--workdir``, or without it ``runs/NAME`` of the recipe's file; UsageError for ``""``."""
    if flag is not None and not flag:
        raise UsageError("--workdir is empty; leave it out for runs/NAME, or name a folder")
    name = os.path.splitext(os.path.basename(recipe))[0]
    name += "_smoke" if config.smoke else ""  # never in the place of the run
    return flag or os.path.join("runs", name)


def set_up(config: ml_collections.ConfigDict) -> None:
    """Does what a configuration asks of JAX and XLA themselves, before JAX looks for devices."""
    if config.compilation_cache != "auto":
        compilation_cache.keep(config.compilation_cache)
    if config.deterministic:
        host.use_deterministic_ops()


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a run, one of its checkpoints, and which weights of that."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--step", default="last", metavar="last|best|N", help="which checkpoint; default: last"
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="the moving average or the weights themselves; default: as eval.use_ema says",
    )


def parse_step(text: str) -> int | str:
    """The value of ``--step``. Raises UsageError where it is none."""
    if text in ("last", "best"):
        return text
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--step must be last, best or a number of steps, not {text!r}")
    return int(text)


def load_trained_run(path: str, step: int | str, weights: str | None, batch_size: int) -> Run:
    """:func:`flax_resnet.load_run`, with the commands' errors."""
    from flax_resnet import load_run
    from flax_resnet.runs import RequestError
    from flax_resnet.weights import WeightsError

    try:
        return load_run(path, step, weights, batch_size=batch_size)
    except RequestError as error:
        raise UsageError(str(error)) from error
    except WeightsError as error:
        raise RunError(str(error)) from error
