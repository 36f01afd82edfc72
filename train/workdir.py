"""A run's folder, which describes itself: what it holds and whether it may be continued.

``config.json`` is the configuration, ``run.json`` what predicting needs beside it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence

import ml_collections

import flax_resnet
from train import config as config_lib
from train.data.splits import Split
from train.errors import RunError, UsageError
from train.files import write_atomically

VERSIONS_OF = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def check(path: str, config: ml_collections.ConfigDict) -> None:
    """Checks, and changes nothing, that ``config`` may train in the folder.

    Raises UsageError, with the keys that differ, where the folder's run learns otherwise
    and has something to lose, and RunError where the folder cannot be written.
    """
    above = os.path.abspath(path)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above) or not os.access(above, os.W_OK):
        reason = "is not a folder" if not os.path.isdir(above) else "cannot be written"
        raise RunError(f"cannot write the workdir {path!r}: {above!r} {reason}")
    if has_checkpoints(path):
        differ = config_lib.differences(read_config(path), config)
        if differ:
            keys = "; ".join(f"{key} was {old!r}, is now {new!r}" for key, old, new in differ)
            raise UsageError(
                f"{path!r} holds a run with another configuration: {keys}. Give the same"
                " configuration to continue it, or another --workdir"
            )


def create(path: str, config: ml_collections.ConfigDict) -> None:
    """Makes the folder and writes the configuration there; RunError where that fails."""
    try:
        os.makedirs(path, exist_ok=True)
        write_atomically(_config_file(path), config_lib.to_json(config))
    except OSError as error:
        raise RunError(f"cannot write the workdir {path!r}: {error.strerror}") from error


def has_checkpoints(path: str) -> bool:
    """Whether anything was saved in the workdir."""
    folder = os.path.join(path, "checkpoints")
    return os.path.isdir(folder) and any(name.isdigit() for name in os.listdir(folder))


def read_config(path: str) -> ml_collections.ConfigDict:
    """The configuration of the run in ``path``. Raises RunError where there is none."""
    try:
        with open(_config_file(path), encoding="utf-8") as file:
            return config_lib.from_json(file.read())
    except FileNotFoundError:
        raise RunError(f"{path!r} holds no run: there is no {_config_file(path)}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {_config_file(path)}: {error}") from error


def describe(
    path: str, config: ml_collections.ConfigDict, train_split: Split, eval_split: Split
) -> None:
    """Writes ``run.json``: what a prediction needs to know, and the versions of what runs."""
    description = {
        "model": config.model.name,
        "class_names": list(train_split.source.class_names),
        "preprocessing": {
            "resize": eval_split.resize,
            "image_size": eval_split.size,
            "interpolation": eval_split.interpolation,
            "mean": list(config.dataset.mean),
            "std": list(config.dataset.std),
        },
        "images": {split.source.split: len(split) for split in (train_split, eval_split)},
    }
    versions = {"flax-resnet": flax_resnet.__version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    text = json.dumps(description | {"versions": versions}, indent=2, ensure_ascii=False)
    write_atomically(os.path.join(path, "run.json"), text + "\n")


def check_data(path: str, *splits: Split) -> None:
    """Raises RunError where data are others than those of the run in ``path``.

    Their folder may be another, but neither their classes nor their number: labels would
    mean something else, and the batches hold other images.
    """
    try:
        with open(os.path.join(path, "run.json"), encoding="utf-8") as file:
            described = json.load(file)
        learned, counts = described["class_names"], described["images"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"cannot read {os.path.join(path, 'run.json')}: {error}") from error
    for split in splits:
        source = split.source
        if list(source.class_names) != learned:
            raise RunError(
                f"the run in {path!r} learned the classes {some(learned)}, but {source.name}"
                f" {source.split} has {some(source.class_names)}"
            )
        if len(split) != counts.get(source.split, len(split)):
            raise RunError(
                f"the run in {path!r} had {counts[source.split]:,} images in {source.name}"
                f" {source.split}, which has {len(split):,} now; put them back, or take another"
                " --workdir"
            )


def some(names: Sequence[str], most: int = 8) -> str:
    """At most so many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _config_file(path: str) -> str:
    return os.path.join(path, "config.json")
