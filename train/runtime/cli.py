"""Shared by all commands: flags, exit status, and one-line errors."""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flax_resnet.program import prepare_streams
from train.runtime import compilation_cache, host
from train.runtime.errors import RunError, UsageError, print_error, warn
from train.runtime.own_code import place
from train.runtime.signals import interruptible

if TYPE_CHECKING:
    from train.runtime.config_dict import ConfigDict


PROGRAM = "flax-resnet"  # the installed command, which train/runtime/entry_point.py runs


def program(module: str) -> str:
    """Return how a user starts the command of a module: as the running one was started."""
    if not sys.argv[0].startswith(f"{PROGRAM} "):
        return f"python -m {module}"
    return f"{PROGRAM} {'train' if module == 'train.main' else module.rpartition('.')[2]}"


class Parser(argparse.ArgumentParser):
    """Parser of one command, which reports a usage error in one line.

    Args:
      module: the command's module; the program is called ``python -m MODULE``, or by the
        installed command if that runs it.
      kwargs: as for ``argparse.ArgumentParser``.
    """

    def __init__(self, module: str, **kwargs):
        super().__init__(prog=program(module), allow_abbrev=False, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """Parse, with ``~`` also expanded in ``--workdir=~/runs``, where shells do not."""
        args = [_expand_home(argument) for argument in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def error(self, message: str):
        """Raise UsageError instead of printing the usage."""
        if message.startswith("unrecognized arguments: --") and "--config" in self.format_usage():
            message += "; configuration keys are set by --config.KEY=VALUE"
        raise UsageError(f"{message}; see {self.prog} --help")


def _expand_home(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    if flag.startswith("--") and equals:
        return flag + equals + os.path.expanduser(value)
    return os.path.expanduser(argument)


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, which :func:`train.config.loading.load_config` reads."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="RECIPE",
        help="the name of a recipe, such as resnet20_digits, or the path of one",
    )


def run_command(command: Callable[[], int | None]) -> None:
    """Run a command and exit: 0 done, 1 an error, 2 wrong usage, or the status it returns.

    Expected errors are printed in one line; others keep their traceback.
    """
    host.keep_freed_memory()
    _silence_libraries()
    compilation_cache.configure()
    prepare_streams()
    warnings.showwarning = lambda message, *_, **__: warn(message)
    try:
        with interruptible(_exit_interrupted):
            status = command() or 0
    except (UsageError, RunError) as error:
        print_error(error)
        status = 2 if isinstance(error, UsageError) else 1
    except PermissionError as error:
        if error.filename is None:
            raise
        advice = "change its permissions, or choose another place"
        print_error(f"no permission for {error.filename!r}; {advice}")
        status = 1
    except MemoryError:
        print_error("out of memory: free some, or raise the limit (ulimit -v, or the container's)")
        status = 1
    except RuntimeError as error:
        # JAX has no type of its own for it, and starts its devices on their first use anywhere.
        if str(error).startswith("Unable to initialize backend"):
            print_error(f"JAX cannot use its devices: {error}")
        elif str(error) == "can't start new thread":
            print_error(
                f"{error}: raise the limit of processes or memory (ulimit -u, ulimit -v, or the"
                " container's)"
            )
        else:
            raise
        status = 1
    except SystemExit as error:
        if (where := place(error)) is None:  # such as that of --help
            raise
        print_error(f"{where} ended the program: SystemExit: {error}")
        status = 1
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _exit_interrupted()
    sys.stdout.flush()
    sys.exit(status)


def _silence_libraries() -> None:
    """Hide log messages of libraries; their errors are raised as exceptions."""
    import absl.logging

    # On CPU also XLA's errors: when it loads a compiled program, it takes tuning options such as
    # +prefer-no-gather for features that the processor lacks (openxla/xla#44565).
    level = "2" if host.has_accelerator() else "3"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    library = logging.getLogger("flax_resnet")
    library.propagate = False
    library.handlers = [_WarningLines()]  # one, however many commands a process runs
    sys.unraisablehook = _ignore_closed_loops


class _WarningLines(logging.Handler):
    """Print what the library logs as warnings of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        warn(record.getMessage())


def _ignore_closed_loops(unraisable: sys.UnraisableHookArgs) -> None:
    """Ignore reads and writes of TensorStore that end after Orbax gave up on one of them.

    The error itself is raised as an exception.
    """
    is_closed_loop = str(unraisable.exc_value) == "Event loop is closed"
    if not (unraisable.exc_type is RuntimeError and is_closed_loop):
        sys.__unraisablehook__(unraisable)


def _exit_interrupted() -> None:
    """Exit at once with status 130.

    XLA's threads may still compute, and the interpreter's orderly exit removes what they use, with
    an occasional segmentation fault. Another thread or a signal handler may call this function, so
    it waits for no stream that others hold.
    """
    with contextlib.suppress(OSError):
        os.write(2, b"error: interrupted\n")
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(130)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Separate ``--config.KEY=VALUE`` and ``--config.KEY VALUE`` from other arguments.

    Returns:
      The other arguments, and the ``(key, value)`` pairs.

    Raises:
      UsageError: a key has no value.
    """
    others: list[str] = []
    overrides: list[tuple[str, str]] = []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--config."):
            others.append(argument)
            continue
        key, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = next(remaining, None)
            if value is None or value.startswith("--"):
                raise UsageError(f"--config.{key} needs a value: --config.{key}=VALUE")
        overrides.append((key, value))
    return others, overrides


def resolve_workdir(flag: str | None, recipe: str, config: ConfigDict) -> str:
    """Return ``--workdir`` or its default, ``runs/NAME`` with the name of the recipe's file.

    Raises:
      UsageError: the flag is empty.
    """
    if flag == "":
        raise UsageError("--workdir is empty; omit it for runs/NAME, or give a folder")
    name = os.path.splitext(os.path.basename(recipe))[0]
    name += "_smoke" if config.smoke else ""  # never in the workdir of the run
    return flag or os.path.join("runs", name)


def configure_jax(config: ConfigDict) -> None:
    """Apply the keys for JAX and XLA. Call it before JAX initializes its devices."""
    if config.compilation_cache != "auto":
        compilation_cache.configure(config.compilation_cache)
    if config.deterministic:
        host.use_deterministic_ops()


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose a run, its checkpoint, and the weights in it."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="workdir of the run")
    parser.add_argument(
        "--step", default="last", metavar="last|best|N", help="checkpoint to load; default: last"
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="moving average or raw weights; default: by eval.use_ema of the run",
    )
    add_trust_flag(parser)


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust_recipe``, for runs with own parts."""
    parser.add_argument(
        "--trust_recipe",
        action="store_true",
        help="run the copy of the recipe in the workdir if the run has own parts and their recipe"
        " is not at its original place; it is a program, so read it first",
    )


def parse_step(text: str) -> int | str:
    """Return the value of ``--step``; raise UsageError if it is invalid."""
    if text in ("last", "best"):
        return text
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--step must be last, best or a number of steps, not {text!r}")
    return int(text)


MAX_SCALE = 4.0


def add_view_flags(parser: argparse.ArgumentParser, of_images: str = "") -> None:
    """Add ``--tta`` and ``--scales``.

    Args:
      parser: the parser.
      of_images: what ``--tta`` averages of networks with outputs of images, if it can.
    """
    flip = "test-time augmentation: average each image and its mirror image,"
    tta = f"{flip} {of_images}the probabilities of pixels"
    parser.add_argument("--tta", choices=("flip",), default="", help=tta)
    scales = (
        "of networks with outputs of every pixel: average their probabilities over these scales"
    )
    scales += " of the images, such as 0.5,0.75,1,1.25,1.5,1.75"
    parser.add_argument("--scales", default="", metavar="NUMBERS", help=scales)


def parse_scales(text: str) -> tuple[float, ...]:
    """Return the value of ``--scales``, by default 1; raise UsageError if it is invalid."""
    try:
        scales = tuple(float(part) for part in text.split(",")) if text else (1.0,)
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= MAX_SCALE for scale in scales):
        raise UsageError(
            f"--scales must be numbers above 0 and at most {MAX_SCALE:g}, such as 0.5,1,1.5, not"
            f" {text!r}"
        )
    if len({*scales}) < len(scales):
        raise UsageError(f"--scales={text} has a number twice")
    return scales
