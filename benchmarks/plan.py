"""Accuracy of train.plan: estimated and actual peak memory and time per epoch.

    python benchmarks/plan.py [--only NAME]

Two configurations on CPU: resnet20 on the digits, and resnet18 at 64 pixels on a folder of random
images, batch 32, streamed. Memory is the peak of the process of ``train.main`` as counted by the
kernel. The time of an epoch is the median time between two evaluations in the output, including
steps, evaluation and checkpoint.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent


def write_images(folder, images=256, classes=4):
    """Write smooth 320×240 images, one folder per class, and a quarter as many for evaluation."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", images // 4)):
        for number in range(count):
            label_folder = Path(folder, split, f"class{number % classes}")
            label_folder.mkdir(parents=True, exist_ok=True)
            blobs = rng.integers(0, 256, (6, 8, 3), np.uint8)
            image = cv2.resize(blobs, (320, 240), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(label_folder / f"{number}.jpg"), image)


def start(module, *arguments):
    """Start a command of the trainer."""
    command = [sys.executable, "-u", "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def actual_run(arguments, workdir):
    """Run the training and return its peak memory, time per epoch and total time."""
    began, evaluations = time.monotonic(), []
    process = start("train.main", *arguments, "--workdir", workdir)
    for line in process.stdout:
        epoch = re.search(r"epoch ([\d.]+),.* eval top1", line)
        if epoch:
            evaluations.append((time.monotonic(), float(epoch[1])))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"train.main ended with status {status}")
    epochs = [
        (after - before) / (epoch - last)
        for (before, last), (after, epoch) in itertools.pairwise(evaluations)
    ]
    return {
        "needed_bytes": usage.ru_maxrss * 1024,
        "epoch_seconds": statistics.median(epochs),
        "total_seconds": time.monotonic() - began,
    }


def estimated_run(arguments, workdir):
    """Return the result of train.plan."""
    process = start("train.plan", *arguments, "--workdir", workdir)
    out, _ = process.communicate()
    print(out, end="", flush=True)
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="name of one of the two")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_images(os.path.join(folder, "images"))
        configs = {
            "resnet20_digits": ["--config", "configs/resnet20_digits.py"],
            "resnet18_64px": [
                *("--config", "configs/resnet18_folder.py"),
                f"--config.dataset.data_dir={folder}/images",
                *("--config.dataset.image_size=64", "--config.batch_size=32"),
                *("--config.num_epochs=6", "--config.eval.every_epochs=1"),
                "--config.checkpoint.every_epochs=1",
            ],
        }
        for name, arguments in configs.items():
            if flags.only not in (None, name):
                continue
            load = os.getloadavg()[0]
            estimate = estimated_run(arguments, os.path.join(folder, name))
            actual = actual_run(arguments, os.path.join(folder, name))
            print(f"{name}, load {load:.1f} before and {os.getloadavg()[0]:.1f} after:")
            for key, unit, scale in (
                ("needed_bytes", "MB", 1e6),
                ("epoch_seconds", "s", 1),
                ("total_seconds", "s", 1),
            ):
                estimated, measured = estimate[key] / scale, actual[key] / scale
                print(
                    f"  {key}: estimated {estimated:.4g} {unit}, actual {measured:.4g} {unit}:"
                    f" {estimated / measured - 1:+.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
