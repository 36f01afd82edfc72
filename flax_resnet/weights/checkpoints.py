"""Read the trainer's own checkpoints, written by Orbax.

A run keeps them in ``WORKDIR/checkpoints/STEP/default``: a tree with ``params``,
``batch_stats`` and the optimizer state, which is not read here. If the run maintained an
exponential moving average (EMA) of both, ``ema``, that is read by default. Tensors are named
like ``params/stage1_block1/conv1/kernel``.
"""

import functools
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_resnet.weights import leaves, manifest
from flax_resnet.weights.run_info import BY_TOP1, BestBy, read_run_info
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError, wrap_read_errors

FOLDER = "checkpoints"
MAX_STEP = 2**31 - 1  # the train state counts steps as int32
_COLLECTIONS = ("params", "batch_stats")


def steps_in(folder: str | os.PathLike[str]) -> list[int]:
    """Return the steps in a checkpoint folder, ascending; empty if it does not exist.

    Files and links are not steps: a link could lead to another run's checkpoint.
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        folders = (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return sorted(int(name) for name in folders if is_step_name(name))


def is_step_name(name: str) -> bool:
    """Return whether a folder of this name is a step's; ``007`` and ``²`` are not."""
    return bool(re.fullmatch("0|[1-9][0-9]{0,9}", name)) and int(name) <= MAX_STEP


def best_in(
    folder: str | os.PathLike[str],
    by: BestBy = BY_TOP1,
) -> tuple[int, float] | None:
    """Return the step with the best value of a metric (ties: the latest) and that value.

    None if no step was evaluated with that metric.
    """
    metrics = {s: manifest.read_metrics(os.path.join(folder, str(s))) for s in steps_in(folder)}
    values = {s: named[by.metric] for s, named in metrics.items() if by.metric in named}
    step = max(values, key=lambda s: (by.score(values[s]), s), default=None)
    return None if step is None else (step, values[step])


def check_step(folder: str | os.PathLike[str], step: int) -> bool:
    """Verify a step by its manifest and return whether it must have one.

    If neither this step nor an earlier one has a manifest, another program wrote them, and
    nothing is verified.

    Raises:
      OSError, ValueError: the step does not match its manifest, or has none but must have.
    """
    earlier = [os.path.join(folder, str(other)) for other in steps_in(folder) if other <= step]
    required = any(map(manifest.exists, earlier))
    if required:
        manifest.verify(os.path.join(folder, str(step)))
    return required


def verify_checkpoint(tree: Path) -> None:
    """Verify the result of :func:`find_checkpoint` by the manifest of its step.

    Raises:
      WeightsError: it does not match.
    """
    step = Path(os.path.abspath(tree))
    step = step.parent if step.name == "default" else step
    try:
        if step.name in map(str, steps_in(step.parent)):
            check_step(step.parent, int(step.name))
        elif manifest.exists(step):  # a copy with another name
            manifest.verify(step)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read the checkpoint {step}: {error}; name another step's folder"
        ) from error


def find_checkpoint(path: Path) -> Path | None:
    """Return the directory of the last step's tree, or None if there is no checkpoint.

    Args:
      path: a workdir, its checkpoint folder, a step or the tree itself.

    Raises:
      WeightsError: the last step has a manifest but no tree.
    """
    for place in (path, path / "default"):
        if (place / "_METADATA").exists():
            return place
    for parent in (path / FOLDER, path):
        for step in reversed(steps_in(parent)):
            folder = parent / str(step)
            if (tree := find_checkpoint(folder)) is not None:
                return tree
            if manifest.exists(folder):
                raise WeightsError(
                    f"{folder} is corrupt: it has no tree; name another step's folder"
                )
    return None


def read_checkpoint(path: Path, use_ema: bool | None = None) -> WeightFile:
    """Read the tree at ``path``, the result of :func:`find_checkpoint`.

    Args:
      path: the directory of the tree.
      use_ema: whether to read the EMA of the weights; by default, if there is one.

    Raises:
      WeightsError: Orbax is not installed, the tree is corrupt, or it has no ``params`` or not
        the EMA.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise WeightsError(f"reading {path} needs Orbax: pip install orbax-checkpoint") from None
    path = path.absolute()
    reader = ocp.PyTreeCheckpointer()
    with wrap_read_errors(str(path)):
        tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
        ema = tree.get("ema") or {}
        if use_ema and not ema:
            raise WeightsError(f"{path} has no EMA of the weights: its run kept none")
        use_ema = bool(ema) if use_ema is None else use_ema
        source = ema if use_ema else tree
        collections = {name: source[name] for name in _COLLECTIONS if source.get(name)}
    if "params" not in collections:
        raise WeightsError(f"{path} has no 'params'; it has {', '.join(map(str, tree)) or 'none'}")
    item = {"ema": collections} if use_ema else collections
    restored: dict[leaves.Path, Any] = {}

    def read(leaf: leaves.Path) -> np.ndarray:
        if not restored:
            args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
            request = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
            tree = reader.restore(path, args=request)
            restored.update(leaves.flatten(tree["ema"] if use_ema else tree))
        return np.asarray(restored[leaf])

    tensors = {
        "/".join(leaf): Tensor(
            tuple(array.shape), np.dtype(array.dtype), functools.partial(read, leaf)
        )
        for leaf, array in leaves.flatten(collections).items()
    }
    info = read_run_info(path)
    return WeightFile(
        "Orbax checkpoint",
        tensors,
        {} if info is None else {"model": info.model},
        (f"read {'the EMA of the weights in ' if use_ema else ''}{path}",),
    )
