"""This project's own checkpoints, which Orbax wrote.

A run keeps them in ``WORKDIR/checkpoints/STEP/default``, a tree with ``params`` and
``batch_stats`` beside the optimizer's state, which is not read here. Where the run kept a moving
average of both, ``ema``, that is what is read, as it is what the run evaluated. Tensors come
out as ``params/stage1_block1/conv1/kernel``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_resnet.weights.tensors import Tensor, WeightFile, WeightsError, telling_damage

_COLLECTIONS = ("params", "batch_stats")


def find_checkpoint(path: Path) -> Path | None:
    """The directory of the tree itself in ``path``: a workdir, its checkpoints, a step or item.

    Of several steps the last. None where there is no checkpoint.
    """
    for place in (path, path / "default"):
        if (place / "_METADATA").exists():
            return place
    steps = [
        child
        for parent in (path / "checkpoints", path)
        if parent.is_dir()
        for child in parent.iterdir()
        if child.name.isdigit() and child.is_dir()
    ]
    for step in sorted(steps, key=lambda step: int(step.name), reverse=True):
        if (found := find_checkpoint(step)) is not None:
            return found
    return None


def read_checkpoint(path: Path) -> WeightFile:
    """Reads the tree that :func:`find_checkpoint` found.

    Raises WeightsError where Orbax is missing or the tree has no ``params``.
    """
    try:
        import orbax.checkpoint as ocp
    except ImportError:
        raise WeightsError(f"reading {path} needs Orbax: pip install orbax-checkpoint") from None
    path = path.absolute()
    reader = ocp.PyTreeCheckpointer()
    with telling_damage(str(path)):
        tree = ocp.PyTreeCheckpointHandler().metadata(path).tree
        average = tree.get("ema") or {}
        source = average or tree
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
