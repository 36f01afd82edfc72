"""Flax's ImageNet example as a side of the benchmarks, with its own network and training step.

Not part of this project: clone https://github.com/google/flax and pass its examples/imagenet. Only
its models.py and train.py are needed.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

# Imports of the example for data, logging and configuration, which its step does not need.
_UNUSED = ("clu", "input_pipeline", "ml_collections", "tensorflow", "tensorflow_datasets")
_NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200")


def check(folder: str, name: str) -> None:
    """Exit unless ``folder`` is the example and has the network ``name``."""
    if not Path(folder, "train.py").is_file() or not Path(folder, "models.py").is_file():
        raise SystemExit(
            f"{folder} is not Flax's examples/imagenet: clone https://github.com/google/flax and"
            " pass that folder as --flax-example"
        )
    if name not in _NETWORKS:
        raise SystemExit(f"Flax's example has no {name}; it has {', '.join(_NETWORKS)}")


def parts(folder: str, name: str, size: int, dtype: Any) -> tuple[Callable, Callable]:
    """Return a function that creates the state, and ``step(state, batch) -> (state, metrics)``.

    The step must run inside an axis named ``batch``.

    Args:
      folder: the example.
      name: network, such as ``resnet50``.
      size: image size in pixels.
      dtype: compute type; without the example's loss scaling, which only its float16 needs.
    """
    import jax

    models, train = _modules(folder)
    network = getattr(models, name.replace("resnet", "ResNet"))
    model = network(num_classes=train.NUM_CLASSES, dtype=dtype)
    config = SimpleNamespace(half_precision=False, momentum=0.9)

    def learning_rate(step):
        return 0.01

    def create():
        return train.create_train_state(jax.random.key(0), config, model, size, learning_rate)

    return create, functools.partial(train.train_step, learning_rate_fn=learning_rate)


def batch(count: int, size: int, dtype: Any) -> dict[str, Any]:
    """Return random normalized float images, the input of the example's step."""
    import jax.numpy as jnp
    import numpy as np

    images = np.random.default_rng(0).standard_normal((count, size, size, 3), np.float32)
    return {"image": jnp.asarray(images, dtype), "label": jnp.arange(count, dtype=jnp.int32) % 10}


def make(folder: str, name: str, size: int, count: int, dtype: Any) -> Callable[[], Any]:
    """Return a function that runs a step of ``count`` images and returns its metrics."""
    import jax

    create, step = parts(folder, name, size, dtype)
    run = jax.pmap(
        step,
        in_axes=(None, 0),
        out_axes=(None, 0),
        axis_name="batch",
        devices=jax.local_devices()[:1],
    )
    data = jax.tree.map(lambda leaf: leaf[None], batch(count, size, dtype))
    state = [create()]

    def call():
        state[0], metrics = run(state[0], data)
        return metrics

    return call


def _modules(folder: str):
    """Return the example's modules ``models`` and ``train``."""
    # First, since modules imported while others are replaced are removed afterwards.
    for name in ("checkpoints", "common_utils", "dynamic_scale", "train_state"):
        importlib.import_module(f"flax.training.{name}")
    importlib.import_module("optax")
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in _UNUSED}):
        sys.modules["models"] = models = _module("models", folder)
        return models, _module("train", folder)


def _module(name: str, folder: str):
    # Under another name, since this project has a package of the same name.
    spec = importlib.util.spec_from_file_location(f"example_{name}", Path(folder, f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
