"""This project's own checkpoints, which Orbax wrote.

A run keeps them in ``WORKDIR/checkpoints/STEP/default``, a tree with ``params`` and
``batch_stats`` beside the optimizer's state, which is not read here. Where the run kept a moving
average of both, ``ema``, that is what is read unless told otherwise. Tensors come
out as ``params/stage1_block1/conv1/kernel``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_resnet.weights import manifest
from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError, wrap_read_errors

FOLDER = "checkpoints"
_COLLECTIONS = ("params", "batch_stats")


def steps_in(folder: str | os.PathLike[str]) -> list[int]:
    """The steps that a folder of checkpoints has, in order; none where it is not there."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    # Of names such as 0099 and ² int() or isdigit() takes some, and none is what a step has.
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def best_in(folder: str | os.PathLike[str]) -> tuple[int, float] | None:
    """The step of the best top-1 and that top-1, if any was evaluated; of equals the last."""
    top1s = [
        (manifest.read_metrics(os.path.join(folder, str(s))).get("top1"), s)
        for s in steps_in(folder)
    ]
    top1, step = max((pair for pair in top1s if pair[0] is not None), default=(0.0, None))
    return None if step is None else (step, top1)


def check_step(folder: str | os.PathLike[str], step: int) -> bool:
    """Whether a step has to be sealed. Raises OSError or ValueError where it is not, as it was.

    Where nothing until there is sealed, something else wrote it; it is as good as it can be read.
    """
    paths = [os.path.join(folder, str(other)) for other in steps_in(folder) if other <= step]
    sealed = any(map(manifest.exists, paths))
    if sealed:
        manifest.verify(os.path.join(folder, str(step)))
    return sealed


def check_tree(tree: Path) -> None:
    """Raises WeightsError where what :func:`find_checkpoint` found is not as it was sealed."""
    step = Path(os.path.abspath(tree))
    step = step.parent if step.name == "default" else step
    try:
        if step.name in map(str, steps_in(step.parent)):
            check_step(step.parent, int(step.name))
        elif manifest.exists(step):  # a copy by another name
            manifest.verify(step)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read the checkpoint {step}: {error}; name another step's folder"
        ) from error


def find_checkpoint(path: Path) -> Path | None:
    """The directory of the tree itself in ``path``: a workdir, its checkpoints, a step or item.

    Of several steps the last. None where there is no checkpoint; WeightsError where the last step
    was sealed and has no tree any more.
    """
    for place in (path, path / "default"):
        if (place / "_METADATA").exists():
            return place
    for parent in (path / FOLDER, path):
        for step in reversed(steps_in(parent)):
            folder = parent / str(step)
            if (found := find_checkpoint(folder)) is not None:
                return found
            if manifest.exists(str(folder)):
                raise WeightsError(
                    f"{folder} is damaged: it has no tree; name another step's folder"
                )
    return None


def read_checkpoint(path: Path, average: bool | None = None) -> WeightFile:
    """Reads the tree that :func:`find_checkpoint` found.

    ``average`` says whether to read the moving average; by default where there is one. Raises
    WeightsError where Orbax is missing or the tree has no ``params``, or no average and is to.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise WeightsError(f"reading {path} needs Orbax: pip install orbax-checkpoint") from None
    path = path.absolute()
    reader = ocp.PyTreeCheckpointer()
    with wrap_read_errors(str(path)):
        tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
        averaged = tree.get("ema") or {}
        if average and not averaged:
            raise WeightsError(f"{path} has no moving average: its run kept none")
        average = bool(averaged) if average is None else average
        source = averaged if average else tree
        wanted = {name: source[name] for name in _COLLECTIONS if source.get(name)}
    if "params" not in wanted:
        raise WeightsError(f"{path} has no 'params'; it has {', '.join(map(str, tree)) or 'none'}")
    item = {"ema": wanted} if average else wanted
    restored: dict[str, Any] = {}

    def read(keys: tuple[str, ...]) -> np.ndarray:
        if not restored:
            args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
            request = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
            tree = reader.restore(path, args=request)
            restored.update(tree["ema"] if average else tree)
        value: Any = restored
        for key in keys:
            value = value[key]
        return np.asarray(value)

    tensors = {}
    for keypath, leaf in jax.tree_util.tree_flatten_with_path(wanted)[0]:
        keys = tuple(entry.key for entry in keypath)
        tensors["/".join(keys)] = Tensor(
            tuple(leaf.shape), np.dtype(leaf.dtype), lambda keys=keys: read(keys)
        )
    what = "the moving average in " if average else ""
    notes = (f"read {what}{path}",)
    return WeightFile("Orbax checkpoint", tensors, _described(path), notes)


def _described(path: Path) -> dict[str, str]:
    """The network's name where the run beside the checkpoint tells it."""
    for folder in list(path.parents)[:3]:  # WORKDIR/checkpoints/STEP/default
        try:
            return {"model": str(json.loads((folder / "run.json").read_text("utf-8"))["model"])}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}
