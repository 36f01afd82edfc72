"""Reading of a run's configuration, description and checkpoints. Checkpoints need Orbax."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax.traverse_util import unflatten_dict

from flax_resnet.schema import Schema, SchemaError, read_error, read_json
from flax_resnet.weights.checkpoints import (
    FOLDER,
    best_in,
    check_step,
    find_checkpoint,
    read_checkpoint,
    steps_in,
)
from flax_resnet.weights.leaves import Path as LeafPath
from flax_resnet.weights.run_info import BY_TOP1, BestBy
from flax_resnet.weights.tensors import WeightsError, wrap_read_errors

_log = logging.getLogger(__name__)

Shapes = Mapping[LeafPath, tuple[int, ...]]


class RunLoadError(WeightsError):
    """There is no such run, or its checkpoints cannot be read; the message gives the reason."""


class RequestError(RunLoadError):
    """The run exists, but the requested step or weights do not."""


def read_description(path: str, name: str, schema: Schema) -> Any:
    """Return the file ``name`` of the workdir ``path``, checked by ``schema``."""
    file_path = os.path.join(path, name)
    try:
        return read_json(file_path, schema)
    except FileNotFoundError:
        raise RunLoadError(f"{path!r} holds no run: there is no {file_path}") from None
    except (OSError, SchemaError) as error:
        raise RunLoadError(read_error(file_path, error)) from error


def restore(
    path: str,
    step: int | str,
    shapes: Shapes,
    ema: bool,
    best_by: BestBy = BY_TOP1,
) -> tuple[int, dict[str, Any]]:
    """Return the number of the chosen step, and its variables.

    Args:
      path: the workdir.
      step: a number, ``"last"`` or ``"best"``. If the last checkpoint is corrupt, the previous
        one is restored and a warning is logged.
      shapes: shapes of the network's variables.
      ema: whether to restore the moving average of the weights.
      best_by: how the best checkpoint is chosen.

    Raises:
      RunLoadError: if no checkpoint can be restored.
      OSError: if the folder of checkpoints cannot be read.
    """
    folder = os.path.join(path, FOLDER)
    steps = steps_in(folder)
    if not steps:
        raise RunLoadError(f"{path!r} has no finished checkpoint yet")
    if step == "best":
        best = best_in(folder, best_by)
        step = best[0] if best else steps[-1]
    if step != "last":
        if step not in steps:
            raise RequestError(f"{folder} has no step {step}; it has {', '.join(map(str, steps))}")
        return step, _read_step(folder, step, shapes, ema)
    failure: WeightsError | None = None
    for number in reversed(steps):
        try:
            variables = _read_step(folder, number, shapes, ema)
        except WeightsError as error:
            failure = failure or error
            continue
        if failure is not None:
            _log.warning("%s; using step %d instead", failure, number)
        return number, variables
    raise RunLoadError(f"{failure}. None of {len(steps)} checkpoints can be read") from failure


def _read_step(folder: str, step: int, shapes: Shapes, ema: bool) -> dict[str, Any]:
    step_folder = Path(folder) / str(step)
    try:
        check_step(folder, step)
        checkpoint = find_checkpoint(step_folder)
    except (OSError, ValueError) as error:
        raise RunLoadError(f"cannot read the checkpoint {step_folder}: {error}") from error
    if checkpoint is None:
        raise RunLoadError(f"cannot read the checkpoint {step_folder}: the folder holds none")
    file = read_checkpoint(checkpoint, use_ema=ema)
    leaves = {}
    for leaf, shape in shapes.items():
        tensor = file.tensors.get("/".join(leaf))
        if tensor is None or tensor.shape != shape:
            problem = "missing" if tensor is None else f"of shape {tensor.shape}"
            raise RunLoadError(
                f"{step_folder} is of another network: {'/'.join(leaf)} is {problem}"
            )
        with wrap_read_errors(str(step_folder)):
            leaves[leaf] = tensor.read()
    return unflatten_dict(leaves)
