"""Overhead of saving in the background: one checkpoint per 50 steps compared with none.

    python benchmarks/studies/checkpoint_cost.py [--rounds 5]

ResNet-18 with momentum at 32 pixels, batch 32, on one device; interleaved rounds of 50 steps.
Rounds with a checkpoint start saving before their first step, as the loop does, and end without
waiting for it. Prints the medians, their ratio, and the duration of a save in its thread.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from benchmarks import trainer
from flax_resnet import create_model
from train.data.augment.pipeline import Augment
from train.runtime import host
from train.workdir.checkpoints import Checkpoints

STEPS = 50


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    host.keep_freed_memory()  # as train.main does
    model = create_model("resnet18", num_classes=10, stem="cifar")
    step_config = trainer.make_step_config(model, augment=Augment(hflip=True))
    step = trainer.Step(step_config, trainer.random_batch(32, 32))
    step()
    seconds = {"without": [], "with a checkpoint": []}
    saving = []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, max_to_keep=2) as checkpoints:
        for _ in range(flags.rounds):
            for kind, times in seconds.items():
                began = time.perf_counter()
                if kind != "without":
                    checkpoints.save(step.devices.fetch(step.state))
                    saver, submitted = checkpoints._saving, time.perf_counter()
                    saver.add_done_callback(
                        lambda _, t=submitted: saving.append(time.perf_counter() - t)
                    )
                for _ in range(STEPS):
                    step()
                times.append(time.perf_counter() - began)
                checkpoints.wait()
            print({kind: round(times[-1], 2) for kind, times in seconds.items()}, flush=True)
    plain, saved = (statistics.median(times) for times in seconds.values())
    ratios = [with_ / without for without, with_ in zip(*seconds.values(), strict=True)]
    bytes_ = sum(leaf.nbytes for leaf in jax.tree.leaves(step.devices.fetch(step.state)))
    size = f"{bytes_ / 1e6:.0f} MB"
    print(f"{STEPS} steps: {plain:.2f} s without, {saved:.2f} s with a checkpoint of {size}")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"ratio within a round, median {statistics.median(ratios):.3f} ({spread})")
    print(f"a save took {statistics.median(saving):.2f} s in its thread")


if __name__ == "__main__":
    main()
