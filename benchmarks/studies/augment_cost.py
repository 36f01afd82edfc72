"""Training step with each augmentation, and with all, compared with no augmentation.

    python benchmarks/studies/augment_cost.py [TrivialAugment mixup …] [--rounds 15]
        [--model resnet18] [--size 64] [--batch-size 32]

Each variant compiles its own step, which takes most of the time; names select variants. A round
runs every step once. Prints the median over the rounds of the ratio to the plain step of the same
round, the median and minimum time of a step, and the time of the first step.
"""

import argparse
import dataclasses
import os
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np

from benchmarks import trainer
from flax_resnet import create_model
from train.data.augment.auto_augment import rand_augment, trivial_augment
from train.data.augment.mixup import Mixup
from train.data.augment.pipeline import Augment
from train.tasks.classification import mixed_cross_entropy

PARTS = {
    "flip, pad-and-crop": dict(hflip=True, pad_crop=4),
    "vertical flip": dict(vflip=True),
    "TrivialAugment": dict(policies=(trivial_augment(),)),
    "RandAugment, 2 operations": dict(policies=(rand_augment(2, 9),)),
    "color jitter": dict(color_jitter=(0.4, 0.4, 0.4, 0.1)),
    "cutout": dict(cutout=16),
    "random erasing": dict(random_erasing=0.25),
    "mixup": dict(mix=Mixup(mixup=0.2)),
    "cutmix": dict(mix=Mixup(cutmix=1.0)),
    "mixup or cutmix": dict(mix=Mixup(mixup=0.2, cutmix=1.0)),
}
EVERYTHING = "everything: those four, EMA, stochastic depth"
USUAL = ("flip, pad-and-crop", "TrivialAugment", "random erasing", "mixup or cutmix")


def settings():
    """Return the fields of Augment by name: none, each, those of a modern recipe, all."""
    usual = {field: value for name in USUAL for field, value in PARTS[name].items()}
    everything = {field: value for part in PARTS.values() for field, value in part.items()}
    everything["policies"] = PARTS["TrivialAugment"]["policies"]
    # The plain step twice: the deviation of the second ratio from 1 is the noise.
    together = {" + ".join(USUAL): usual, "all": everything, EVERYTHING: usual}
    return {"plain": {}, "plain again": {}} | PARTS | together


class Timed:
    """The training step of one variant, with its own state."""

    def __init__(self, model, augment, size, batch_size, ema_decay=0.0):
        loss = partial(mixed_cross_entropy, smoothing=0.1)
        step_config = trainer.make_step_config(
            model,
            augment=augment,
            task=dataclasses.replace(trainer.TASK, loss=loss),
            ema_decay=ema_decay,
        )
        self.step = trainer.Step(step_config, trainer.random_batch(batch_size, size))
        self.first = self.seconds()

    def seconds(self):
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="variants to compare with the plain step; default: all"
    )
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    flags = parser.parse_args()

    device = jax.devices()[0]
    print(
        f"{flags.model}, {flags.size}×{flags.size}, batch {flags.batch_size}, {device.device_kind},"
        f" {os.cpu_count()} cores, JAX {jax.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    model = create_model(flags.model, num_classes=1000)
    all_steps = {}
    for name, fields in settings().items():
        if flags.names and name.split(":")[0] not in ("plain", "plain again", *flags.names):
            continue
        extra = {"ema_decay": 0.999} if name == EVERYTHING else {}
        net = model.clone(drop_path=0.1) if name == EVERYTHING else model
        all_steps[name] = Timed(net, Augment(**fields), flags.size, flags.batch_size, **extra)
    rounds = [
        {name: step.seconds() for name, step in all_steps.items()} for _ in range(flags.rounds)
    ]
    for name, step in all_steps.items():
        milliseconds = [1e3 * times[name] for times in rounds]
        ratio = np.median([times[name] / times["plain"] for times in rounds])
        print(
            f"{ratio:6.3f} × plain  {np.median(milliseconds):7.1f} ms"
            f"  min {min(milliseconds):7.1f} ms  first {step.first:5.1f} s  {name}"
        )


if __name__ == "__main__":
    main()
