"""What saving in the background costs: one save every 50 steps against none.

    python benchmarks/checkpoint_cost.py [--rounds 5]

ResNet-18 with momentum at 32 pixels, batch 32, on one device; interleaved rounds of 50 steps, of
which those that save hand the state to Checkpoints at their start, as the loop does, and end
without waiting for it. Prints the medians, their ratio, and how long a save took in its thread.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np
import optax

from flax_resnet import create_model
from train import allocation, steps
from train.augment import Augment
from train.checkpoints import Checkpoints
from train.losses import make_loss
from train.parallel import Pmap

STEPS = 50


def make(size=32, batch_size=32):
    """A compiled step, its batch and the state, on one device."""
    schedule = optax.constant_schedule(0.01)
    task = steps.Task(
        model=create_model("resnet18", num_classes=10, stem="small"),
        optimizer=optax.sgd(schedule, 0.9),
        schedule=schedule,
        augment=Augment(flip=True),
        loss=make_loss("cross_entropy"),
        eval_loss=make_loss("cross_entropy"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        seed=0,
    )
    devices = Pmap(jax.local_devices()[:1])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    batch = devices.split({"image": images, "label": np.zeros(batch_size, np.int32)})
    step = devices.train(lambda state, _, batch: steps.train_step(task, state, batch))
    return devices, step, batch, devices.replicate(steps.create_state(task, (size, size, 3)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    allocation.keep_freed()  # as train.main does
    devices, step, batch, state = make()
    state, metrics = step(state, {}, batch)
    jax.block_until_ready(metrics)
    seconds = {"without": [], "with a save": []}
    saving = []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, keep=2) as checkpoints:
        for _ in range(flags.rounds):
            for kind, times in seconds.items():
                began = time.perf_counter()
                if kind != "without":
                    checkpoints.save(devices.fetch(state))
                    saver, submitted = checkpoints._saving, time.perf_counter()
                    saver.add_done_callback(
                        lambda _, t=submitted: saving.append(time.perf_counter() - t)
                    )
                for _ in range(STEPS):
                    state, metrics = step(state, {}, batch)
                    jax.block_until_ready(metrics)
                times.append(time.perf_counter() - began)
                checkpoints.wait()
            print({kind: round(times[-1], 2) for kind, times in seconds.items()}, flush=True)
    plain, saved = (statistics.median(times) for times in seconds.values())
    ratios = [with_ / without for without, with_ in zip(*seconds.values(), strict=True)]
    bytes_ = sum(leaf.nbytes for leaf in jax.tree.leaves(devices.fetch(state)))
    size = f"{bytes_ / 1e6:.0f} MB"
    print(f"{STEPS} steps: {plain:.2f} s without, {saved:.2f} s with a save of {size}")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"ratio of a round's two, median {statistics.median(ratios):.3f} ({spread})")
    print(f"a save took {statistics.median(saving):.2f} s in its thread")


if __name__ == "__main__":
    main()
