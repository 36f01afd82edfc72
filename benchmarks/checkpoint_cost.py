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
    step_config = trainer.make_task(model, augment=Augment(hflip=True))
    step = trainer.Step(step_config, trainer.random_batch(32, 32))
    step()
    seconds = {"without": [], "with a save": []}
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
    print(f"{STEPS} steps: {plain:.2f} s without, {saved:.2f} s with a save of {size}")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"ratio of a round's two, median {statistics.median(ratios):.3f} ({spread})")
    print(f"a save took {statistics.median(saving):.2f} s in its thread")


if __name__ == "__main__":
    main()
