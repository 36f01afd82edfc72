"""The same losses and parameters on 1, 2, 4 and 8 devices, with pmap and shard_map."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.flags import xla_flags
from train.engine.devices import DispatchThrottle, Pmap, ShardMap, make_devices
from train.runtime.errors import UsageError

STEPS = 20

SCRIPT = f"""
import json
import jax, numpy as np, optax
from tests.train.engine.steps import MODEL, make_step_config
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


class Result:
    """A result of a step on a device."""

    def __init__(self, ready=True):
        self.ready = ready

    def is_ready(self):
        return self.ready

    def block_until_ready(self):
        self.ready = True
        return self


def test_throttle_waits_for_the_oldest_of_more_than_four_steps():
    throttle = DispatchThrottle()
    assert throttle.idle()
    results = [{"loss": Result(ready=False)} for _ in range(6)]
    for result in results[:4]:
        assert throttle.add(result) is None
    assert not any(result["loss"].ready for result in results)
    assert throttle.add(results[4]) is results[0] and results[0]["loss"].ready
    assert throttle.add(results[5]) is results[1]
    assert [result["loss"].ready for result in results] == [True] * 2 + [False] * 4
    assert not throttle.idle()
    results[5]["loss"].ready = True  # steps finish in order
    assert throttle.idle()


@pytest.mark.parametrize("kind", [Pmap, ShardMap])
def test_arrays_are_placed_in_order_and_fetched_as_copies(kind):
    devices = kind(jax.local_devices()[:4])
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.int32(7)}
    fetched = devices.fetch(devices.replicate(tree))
    jax.tree.map(np.testing.assert_array_equal, fetched, tree)
    assert fetched["a"].flags.owndata
    parts = devices.split({"x": np.arange(8).reshape(8, 1)})["x"]
    shards = {shard.device: np.asarray(shard.data).ravel() for shard in parts.addressable_shards}
    assert [shards[device].tolist() for device in devices.local] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_batch_must_divide_among_devices_and_micro_batches():
    devices = Pmap(jax.local_devices()[:4])
    assert (len(devices), devices.platform, devices.describe()) == (4, "cpu", "4 cpu devices")
    assert Pmap(jax.local_devices()[:1]).describe() == "1 cpu device"
    devices.check_batch(24, 3)
    for size, count, nearest in ((25, 1, 24), (27, 1, 28), (24, 4, 32), (3, 2, 8)):
        with pytest.raises(UsageError, match=rf"={size} .* the nearest that does is {nearest}$"):
            devices.check_batch(size, count)
    assert isinstance(make_devices("pmap"), Pmap) and isinstance(
        make_devices("shard_map"), ShardMap
    )
