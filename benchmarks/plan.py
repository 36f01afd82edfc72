"""What train.plan predicts, beside what the run then shows: peak memory and time per epoch.

    python benchmarks/plan.py [--only NAME]

Two configs on CPU: resnet20 on the digits, and resnet18 at 64 pixels on a folder of drawn
pictures, batch 32, streamed. Memory is the most that the process of ``train.main`` held, as
the kernel counts it; the time of an epoch is the median time between the lines of two
evaluations, which has the steps, the evaluation and the saving in it.
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


def draw_pictures(folder, images=256, classes=4):
    """Smooth pictures of 320×240 pixels in a folder a class; a quarter as many to evaluate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", images // 4)):
        for number in range(count):
            place = Path(folder, split, f"class{number % classes}")
            place.mkdir(parents=True, exist_ok=True)
            blobs = rng.integers(0, 256, (6, 8, 3), np.uint8)
            picture = cv2.resize(blobs, (320, 240), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(place / f"{number}.jpg"), picture)


def start(module, *arguments):
    command = [sys.executable, "-u", "-m", module, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def truth(arguments, workdir):
    """Peak bytes, seconds of an epoch and of the whole run, as it shows them."""
    began, evaluated = time.monotonic(), []
    process = start("train.main", *arguments, "--workdir", workdir)
    for line in process.stdout:
        epoch = re.search(r"epoch ([\d.]+),.* eval top1", line)
        if epoch:
            evaluated.append((time.monotonic(), float(epoch[1])))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"train.main ended with {status}")
    epochs = [
        (after - before) / (epoch - last)
        for (before, last), (after, epoch) in itertools.pairwise(evaluated)
    ]
    return {
        "needed_bytes": usage.ru_maxrss * 1024,
        "epoch_seconds": statistics.median(epochs),
        "total_seconds": time.monotonic() - began,
    }


def prediction(arguments, workdir):
    process = start("train.plan", *arguments, "--workdir", workdir)
    out, _ = process.communicate()
    print(out, end="", flush=True)
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one of the two")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(os.path.join(folder, "pictures"))
        configs = {
            "resnet20_digits": ["--config", "configs/resnet20_digits.py"],
            "resnet18_64px": [
                *("--config", "configs/resnet18_folder.py"),
                f"--config.dataset.data_dir={folder}/pictures",
                *("--config.dataset.image_size=64", "--config.batch_size=32"),
                *("--config.num_epochs=6", "--config.eval.every_epochs=1"),
                "--config.checkpoint.every_epochs=1",
            ],
        }
        for name, arguments in configs.items():
            if flags.only not in (None, name):
                continue
            load = os.getloadavg()[0]
            told = prediction(arguments, os.path.join(folder, name))
            found = truth(arguments, os.path.join(folder, name))
            print(f"{name}, load {load:.1f} before and {os.getloadavg()[0]:.1f} after:")
            for key, unit, scale in (
                ("needed_bytes", "MB", 1e6),
                ("epoch_seconds", "s", 1),
                ("total_seconds", "s", 1),
            ):
                predicted, shown = told[key] / scale, found[key] / scale
                print(
                    f"  {key}: predicted {predicted:.4g} {unit}, shown {shown:.4g} {unit}:"
                    f" {predicted / shown - 1:+.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
