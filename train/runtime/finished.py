"""What the commands share that take a run as it is: evaluate, predict and export."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from train.runtime.errors import RunError, UsageError

if TYPE_CHECKING:  # which imports JAX, and that takes a second
    from flax_resnet.runs import Run


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose a run, one of its checkpoints, and which weights of that."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--step", default="last", metavar="last|best|N", help="which checkpoint; default: last"
    )
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        help="the moving average or the weights themselves; default: as eval.ema says",
    )


def parse_step(text: str) -> int | str:
    """The value of ``--step``. Raises UsageError where it is none."""
    if text in ("last", "best"):
        return text
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--step must be last, best or a number of steps, not {text!r}")
    return int(text)


def open_run(path: str, step: int | str, weights: str | None, batch_size: int) -> Run:
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
