"""Steps of networks with outputs of pixels."""

import jax
import numpy as np
import pytest

from benchmarks.trainer import make_step_config
from flax_resnet import create_model, init_variables
from train.engine.devices import Pmap
from train.engine.step import create_state, train_step
from train.tasks.segmentation import Segmentation

SMALL = dict(block="residual", stage_sizes=(1, 1), width=8, num_classes=5)


@pytest.fixture
def masks():
    """A batch of images and masks for three devices."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (6, 16, 16, 3), np.uint8),
        "label": rng.integers(0, 5, (6, 16, 16), np.uint8),
    }


def test_frozen_statistics_keep_every_bit_on_three_devices(masks):
    """Their mean of equal numbers may round, and so may an average with them."""
    model = create_model("fcn_resnet50", **SMALL, freeze_batch_norm=True)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(  # numbers that use all bits of the mantissa
        lambda leaf: (leaf + rng.uniform(0.1, 0.2, leaf.shape)).astype(np.float32),
        init_variables(model, 0, (16, 16, 3)),
    )
    step_config = make_step_config(model, task=Segmentation(), ema_decay=0.5)
    devices = Pmap(jax.local_devices()[:3])
    step = devices.train(lambda state, data, batch: train_step(step_config, state, batch))
    state = devices.replicate(create_state(step_config, (16, 16, 3), variables))
    for _ in range(3):
        state, _ = step(state, {}, devices.split(masks))
    state, before = devices.fetch(state), variables["batch_stats"]
    for after in (state.batch_stats, state.ema["batch_stats"]):
        jax.tree.map(np.testing.assert_array_equal, after["backbone"], before["backbone"])
        same = jax.tree.map(np.array_equal, after["head"], before["head"])
        assert not any(jax.tree.leaves(same))
    same = jax.tree.map(np.array_equal, state.params, variables["params"])
    assert not any(jax.tree.leaves(same))


def test_a_step_that_is_not_finite_on_one_device_is_skipped(masks):
    model = create_model("fcn_resnet50", **SMALL, aux_head=True)
    task = Segmentation(0.5, class_weights=(1.0, 2.0, 1.0, 1.0, 3.0))
    step_config = make_step_config(model, task=task, skip_nonfinite=True, ema_decay=0.5)
    devices = Pmap(jax.local_devices()[:3])
    step = devices.train(lambda state, data, batch: train_step(step_config, state, batch))
    before = create_state(step_config, (16, 16, 3))
    broken, whole = np.float32([1, 1, np.inf, 1, 1, 1]), np.ones(6, np.float32)
    state = devices.replicate(before)
    state, metrics = step(state, {}, devices.split(masks | {"weight": broken}))
    skipped, metrics = devices.fetch(state), devices.fetch(metrics)
    assert metrics["nonfinite"] == 1 and metrics["loss"] == metrics["pixel_accuracy"] == 0
    for name in ("params", "batch_stats", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(skipped, name), getattr(before, name))
    state, metrics = step(state, {}, devices.split(masks | {"weight": whole}))
    metrics = devices.fetch(metrics)
    assert metrics["nonfinite"] == 0 and metrics["loss"] > 0
    assert devices.fetch(state).step == 2
