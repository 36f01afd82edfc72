"""The same losses and parameters on 1, 2, 4 and 8 devices, with pmap and shard_map."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.flags import xla_flags

STEPS = 20

SCRIPT = f"""
import json
import jax, numpy as np, optax
from tests.train.engine.test_step import MODEL, make_step_config
from train.data.augment.pipeline import Augment
from train.engine.devices import Pmap, ShardMap
from train.engine.step import AXIS, create_state, train_step

rng = np.random.default_rng(0)
images = rng.integers(0, 256, ({STEPS}, 32, 12, 12, 3)).astype(np.uint8)
labels = rng.integers(0, 7, ({STEPS}, 32)).astype(np.int32)
schedule = optax.constant_schedule(0.02)
step_config = make_step_config(model=MODEL.clone(axis_name=AXIS),
                        augment=Augment(hflip=True, pad_crop=2),
                        optimizer=optax.sgd(schedule, 0.9), schedule=schedule)
for kind, counts in ((Pmap, (1, 2, 4, 8)), (ShardMap, (8,))):
    for count in counts:
        devices = kind(jax.local_devices()[:count])
        step = devices.train(lambda s, data, batch: train_step(step_config, s, batch))
        state = devices.replicate(create_state(step_config, (12, 12, 3)))
        losses = []
        for image, label in zip(images, labels):
            state, metrics = step(state, {{}}, devices.split({{"image": image, "label": label}}))
            losses.append(float(devices.fetch(metrics)["loss"]))
        params = devices.fetch(state).params
        flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        row = {{"kind": kind.__name__, "devices": count, "losses": losses, "params": flat.tolist()}}
        print(json.dumps(row))
"""


@pytest.fixture(scope="module")
def learned():
    """``{(kind, devices): (losses, parameters)}``, from a process with eight devices."""
    env = os.environ | {"XLA_FLAGS": xla_flags(8), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True)
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    return {
        (row["kind"], row["devices"]): (np.array(row["losses"]), np.array(row["params"]))
        for row in rows
    }


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_number_of_devices_does_not_matter_with_sync_batch_norm(learned, devices):
    losses, params = learned["Pmap", 1]
    others, other = learned["Pmap", devices]
    np.testing.assert_allclose(others, losses, rtol=2e-4)
    assert np.linalg.norm(other - params) <= 1e-4 * np.linalg.norm(params)


def test_shard_map_matches_pmap(learned):
    """Not bit for bit, since the compiler fuses the two programs differently."""
    losses, params = learned["Pmap", 8]
    others, other = learned["ShardMap", 8]
    np.testing.assert_allclose(others, losses, rtol=2e-4)
    assert np.linalg.norm(other - params) <= 1e-4 * np.linalg.norm(params)
