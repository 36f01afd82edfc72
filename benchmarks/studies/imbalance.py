"""Imbalanced classes: what weights, sampling, logit adjustment and focal loss gain on digits.

    python benchmarks/studies/imbalance.py [--kinds plain weights …] [--seeds 3] [--epochs 8]

The digits recipe with the training images of the digits 0 to 4 cut to ten each; the test images are
complete. Prints top-1 and balanced accuracy (the mean recall of the ten digits) of the final
weights, as means over seeds, which also choose the images. Seeds of one kind share a compiled
program. After the recipe's 20 epochs a network has learned the few images as well, with whatever
weights; after 8, with the same share of warm-up, it has not.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from train import arrays_source, load_config, register_metric
from train.data.sources.digits import TRAIN_IMAGES
from train.engine.programs import SharedPrograms
from train.loop import train
from train.runtime.signals import StopRequest

RARE, KEPT = 5, 10  # classes below RARE keep KEPT images
KINDS = {
    "plain": {},
    "weights": {"class_weights": "balanced"},
    "sampling": {"loader.sampling": "balanced"},
    "logits": {"logit_adjustment": 1.0},
    "focal": {"loss": "focal"},
}
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = np.rint(IMAGES.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
TEST_COUNTS = np.bincount(LABELS[TRAIN_IMAGES:])


@register_metric("mean_recall")
def mean_recall(logits, labels):
    """Return values (N,) whose mean over the test images is the balanced accuracy."""
    weights = jnp.asarray(TEST_COUNTS.sum() / (len(TEST_COUNTS) * TEST_COUNTS))
    return (logits.argmax(1) == labels) * weights[labels]


def sources(seed):
    """Return the cut training images and all test images."""
    order = np.random.default_rng(seed).permutation(TRAIN_IMAGES)
    labels = LABELS[order]
    number = np.array([(labels[:i] == label).sum() for i, label in enumerate(labels)])
    kept = np.sort(order[(labels >= RARE) | (number < KEPT)])
    names = [str(digit) for digit in range(10)]
    test = IMAGES[TRAIN_IMAGES:], LABELS[TRAIN_IMAGES:]
    return arrays_source(IMAGES[kept], LABELS[kept], names), arrays_source(*test, names, "test")


def recipe(kind, seed, epochs):
    """Return the configuration of one run."""
    keys = {"seed": seed, "num_epochs": epochs, "schedule.warmup_epochs": epochs / 4}
    keys |= {"eval.every_epochs": 0.0, "checkpoint.every_epochs": 0.0}
    keys |= {"eval.metrics": "mean_recall"} | KINDS[kind]
    return load_config("resnet20_digits", [(name, str(value)) for name, value in keys.items()])


def main():
    """Train every kind with every seed, and print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=8.0)
    flags = parser.parse_args()
    for kind in flags.kinds:
        programs, results = SharedPrograms(), []
        for seed in range(flags.seeds):
            run = recipe(kind, seed, flags.epochs), sources(seed)
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                results.append(train(run[0], folder, StopRequest(), run[1], programs=programs))
        row = {"kind": kind}
        for name in ("top1", "mean_recall"):
            values = [result[name] for result in results]
            row |= {name: round(statistics.mean(values), 4), f"{name}_each": values}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
