"""The ImageNet example of Flax as a side of the benchmarks: its own network and training step.

Not part of this project: clone https://github.com/google/flax and give its examples/imagenet.
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

# What the example imports to read data, log and configure, in which its step has no part.
_ABSENT = (
    "absl", "clu", "input_pipeline", "ml_collections", "tensorflow", "tensorflow_datasets",
)  # fmt: skip


def make(folder: str, name: str, size: int, batch: int, dtype: Any) -> Callable[[], Any]:
    """A call of which does a step and gives its metrics; ``name`` such as ``resnet50``.

    In float32, or in ``dtype`` without the example's scaling of losses, which its float16 needs.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    models, train = _modules(folder)
    network = getattr(models, name.replace("resnet", "ResNet"), None)
    if network is None:
        raise SystemExit(f"Flax's example has no {name}; it has ResNet18, 34, 50, 101, 152, 200")
    model = network(num_classes=train.NUM_CLASSES, dtype=dtype)
    config = SimpleNamespace(half_precision=False, momentum=0.9)

    def rate(step):
        return 0.01

    state = train.create_train_state(jax.random.key(0), config, model, size, rate)
    step = jax.pmap(
        functools.partial(train.train_step, learning_rate_fn=rate),
        in_axes=(None, 0),
        out_axes=(None, 0),
        axis_name="batch",
        devices=jax.local_devices()[:1],
    )
    images = np.random.default_rng(0).standard_normal((1, batch, size, size, 3), np.float32)
    labels = np.arange(batch, dtype=np.int32)[None] % 10
    data = {"image": jnp.asarray(images, dtype), "label": jnp.asarray(labels)}
    held = [state]

    def call():
        held[0], metrics = step(held[0], data)
        return metrics

    return call


def _modules(folder: str):
    """The example's ``models`` and ``train``."""
    if not Path(folder, "train.py").is_file() or not Path(folder, "models.py").is_file():
        raise SystemExit(
            f"{folder} is not Flax's examples/imagenet: clone https://github.com/google/flax and"
            " give that folder as --flax-example"
        )
    sys.path.insert(0, str(folder))
    import flax.training.checkpoints  # noqa: F401  before, as it looks for TensorFlow

    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in _ABSENT}):
        import models

        # Under another name than its own, which is that of this project's package.
        spec = importlib.util.spec_from_file_location("example_train", Path(folder, "train.py"))
        train = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(train)
    sys.path.remove(str(folder))
    return models, train
