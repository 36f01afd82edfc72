"""Fine-tuning compared with training from scratch, on data that need no download.

    python benchmarks/studies/finetuning.py [--seeds 3] [--per-class 10]

A ResNet-20 is trained on the digits 0 to 4 and saved with torchvision's parameter names. From that
file (``init_from``) it is fine-tuned on a few images of each of the digits 5 to 9: all layers, with
the first stages frozen, and only the head; and compared with random initial weights. All are
evaluated on all test images of 5 to 9; prints the accuracies of each seed and their means.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
from sklearn.datasets import load_digits

from flax_resnet import load_weights, save_weights
from train.config.loading import default_config
from train.loop import train
from train.runtime.signals import StopRequest

NUM_TRAIN = 1437  # the last 360 are test images


def make_folder(root, digits, per_class=None, seed=0):
    """Write ROOT/train/DIGIT/N.png, selected by seed, and ROOT/val/DIGIT/N.png."""
    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng(seed)
    for digit in digits:
        numbers = np.flatnonzero(labels == digit)
        chosen = rng.permutation(numbers[numbers < NUM_TRAIN])[:per_class]
        for split, selected in (("train", chosen), ("val", numbers[numbers >= NUM_TRAIN])):
            folder = os.path.join(root, split, str(digit))
            os.makedirs(folder)
            for number in selected:
                cv2.imwrite(os.path.join(folder, f"{number}.png"), images[number])


def learn(root, workdir, steps, batch_size, rate=0.05, **keys):
    """Train on a folder and return the accuracy of the last evaluation."""
    config = default_config()
    config.model.name = "resnet20"
    config.dataset.update(name="folder", data_dir=root, eval_split="val", image_size=16)
    config.dataset.update(mean=(0.305,) * 3, std=(0.318,) * 3)
    config.augment.pad_crop = 2
    config.batch_size, config.num_steps = batch_size, steps
    config.optimizer.weight_decay = 1e-3
    config.schedule.update(learning_rate=rate, warmup_steps=steps // 10)
    config.eval.every_epochs = config.checkpoint.every_epochs = 0
    for name, value in keys.items():
        config[name] = value
    with contextlib.redirect_stdout(io.StringIO()):
        return train(config, workdir, StopRequest())["top1"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pretraining-steps", type=int, default=300)
    flags = parser.parse_args()
    methods = {
        "from scratch": {},
        "fine-tuned": {"init_from": "", "rate": 0.03},
        "two stages frozen": {"init_from": "", "freeze": "stem*,stage[12]*"},
        "head only": {"init_from": "", "freeze": "backbone"},
    }
    results = {method: [] for method in methods}
    with tempfile.TemporaryDirectory() as root:
        make_folder(f"{root}/first", range(5))
        top1 = learn(f"{root}/first", f"{root}/pretrained", flags.pretraining_steps, 64)
        weights = f"{root}/pretrained.safetensors"
        save_weights("resnet20", load_weights("resnet20", f"{root}/pretrained"), weights)
        print(f"0 to 4: {top1:.1%}")
        for seed in range(flags.seeds):
            data = f"{root}/second{seed}"
            make_folder(data, range(5, 10), flags.per_class, seed)
            for number, (method, keys) in enumerate(methods.items()):
                keys = keys | ({"init_from": weights} if "init_from" in keys else {})
                workdir = f"{root}/{seed}{number}"
                size = 5 * flags.per_class  # full batch
                results[method].append(learn(data, workdir, flags.steps, size, seed=seed, **keys))
            print(
                f"seed {seed}:", *(f"{method} {top1[-1]:.1%}," for method, top1 in results.items())
            )
    print(f"5 to 9, {flags.per_class} images per class, {flags.steps} steps, mean of seeds:")
    for method, top1 in results.items():
        print(f"  {method:24} {statistics.mean(top1):.1%} ({min(top1):.1%} to {max(top1):.1%})")


if __name__ == "__main__":
    main()
