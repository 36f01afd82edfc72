"""Several classes per image: mean average precision on drawn pictures of one to three shapes.

    python benchmarks/studies/multi_label.py [--epochs 4] [--seeds 1]

Circle, cross, square and triangle have any color, size and place. Trains ``resnet20_digits`` with
``task="multi_label"`` on 1,200 of 1,600 pictures of 32×32, exports the network to StableHLO, and
prints for each seed the metrics of the other 400, seconds of the clock and of the processor for the
training, and the largest difference between the probabilities of export and run.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
from PIL import Image, ImageDraw

from flax_resnet.runs import load_run
from train import arrays_source, load_config
from train.export.exporting import export
from train.loop import train
from train.runtime.signals import StopRequest

NAMES = ("circle", "cross", "square", "triangle")
SIDE, COUNT, TRAINING = 32, 1600, 1200


def picture(rng, chosen):
    """Draw the chosen shapes in different quarters, uint8 ``(32, 32, 3)``."""
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE), tuple(rng.integers(0, 90, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for place, shape in zip(rng.permutation(4), np.flatnonzero(chosen), strict=False):
        x, y = (
            np.array([place % 2, place // 2]) * SIDE + SIDE // 2 + rng.integers(-4, 5, 2)
        ).tolist()
        r, color = int(rng.integers(8, 14)), tuple(rng.integers(140, 256, 3).tolist())
        if shape == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        elif shape == 1:
            draw.line((x - r, y - r, x + r, y + r), fill=color, width=5)
            draw.line((x - r, y + r, x + r, y - r), fill=color, width=5)
        elif shape == 2:
            draw.rectangle((x - r, y - r, x + r, y + r), fill=color)
        else:
            draw.polygon(((x, y - r), (x - r, y + r), (x + r, y + r)), fill=color)
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def pictures(seed):
    """Return the pictures ``(N, 32, 32, 3)`` and their classes, uint8 ``(N, 4)``."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((COUNT, len(NAMES)), np.uint8)
    for row in labels:
        row[rng.choice(len(NAMES), rng.integers(1, 4), replace=False)] = 1
    return np.stack([picture(rng, row) for row in labels]), labels


def main():
    """Train, export and print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    flags = parser.parse_args()
    for seed in range(flags.seeds):
        images, labels = pictures(seed)
        sources = (
            arrays_source(images[:TRAINING], labels[:TRAINING], NAMES),
            arrays_source(images[TRAINING:], labels[TRAINING:], NAMES, "test"),
        )
        keys = {"task": "multi_label", "seed": seed, "num_epochs": flags.epochs}
        keys |= {"dataset.image_size": SIDE, "compilation_cache": "off"}
        config = load_config(
            "resnet20_digits", [(name, str(value)) for name, value in keys.items()]
        )
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            start, cpu = time.perf_counter(), time.process_time()
            result = train(config, folder, StopRequest(), sources)
            row = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
            run = load_run(folder)
            file = Path(folder, "exported")
            list(export(run, "stablehlo", str(file)))  # it yields what it does
            exported = jax.export.deserialize(bytearray(file.read_bytes()))
            theirs = np.asarray(exported.call(images[TRAINING:]))
            row["difference"] = float(np.abs(theirs - run.predict(images[TRAINING:])).max())
        print(json.dumps({"seed": seed} | result | row), flush=True)


if __name__ == "__main__":
    main()
