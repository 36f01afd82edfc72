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
