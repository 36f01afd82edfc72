"""Degradation: deeper plain networks train worse, residual networks do not.

    python benchmarks/studies/degradation.py [--depths 8 20 32 56] [--seeds 3] [--picture FILE.png]

The CIFAR networks of He et al. 2015 (arXiv:1512.03385, section 4.2), with and without shortcuts, on
scikit-learn's digits at 8×8, all with the same recipe. Prints the final training loss (mean of the
last epochs, with augmentation) and the test accuracy, and plots both over depth, as figure 6 of the
paper does for CIFAR-10.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from train.config.loading import default_config
from train.loop import train
from train.runtime.signals import StopRequest

KINDS = {"plain": "none", "residual": "zero_pad"}


def recipe(depth, shortcut, seed, epochs):
    """Return the configuration of one run."""
    config = default_config()
    blocks = (depth - 2) // 6
    config.model.update(name="resnet20", stage_sizes=(blocks,) * 3, shortcut=shortcut)
    config.dataset.update(image_size=8, mean=(0.305,) * 3, std=(0.318,) * 3)
    config.augment.pad_crop = 1
    config.update(seed=seed, batch_size=128, num_epochs=epochs)
    config.optimizer.update(nesterov=True, weight_decay=1e-4)
    config.schedule.update(learning_rate=0.1, warmup_epochs=2.0)
    config.eval.every_epochs = config.checkpoint.every_epochs = 0
    return config


def measure(depth, kind, seed, epochs):
    """Return the training loss of the last tenth of the run, and the test accuracy."""
    config = recipe(depth, KINDS[kind], seed, epochs)
    with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
        top1 = train(config, workdir, StopRequest())["top1"]
        with open(os.path.join(workdir, "metrics.jsonl"), encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    last = rows[-1]["step"]
    return statistics.mean(r["train/loss"] for r in rows if r["step"] > 0.9 * last), top1


def draw(results, depths, path):
    """Plot training loss and accuracy over depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=120)
    for axis, index, title in zip(
        figure.subplots(1, 2), (0, 1), ("training loss (nats)", "test top-1"), strict=True
    ):
        for kind, style in (("plain", "o--"), ("residual", "o-")):
            seeds = [[run[index] for run in results[kind, depth]] for depth in depths]
            axis.plot(depths, [statistics.mean(values) for values in seeds], style, label=kind)
            axis.fill_between(depths, [*map(min, seeds)], [*map(max, seeds)], alpha=0.15)
        axis.set(title=title, xlabel="layers", xticks=depths)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 20, 56])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--picture", metavar="FILE", help="plot to write")
    flags = parser.parse_args()
    if wrong := [depth for depth in flags.depths if (depth - 2) % 6 or depth < 8]:
        parser.error(f"depths must be 6n + 2 and at least 8, not {wrong}")
    results = {}
    for depth in flags.depths:
        for kind in KINDS:
            start = time.monotonic()
            runs = [measure(depth, kind, seed, flags.epochs) for seed in range(flags.seeds)]
            results[kind, depth] = runs
            losses, top1s = zip(*runs, strict=True)
            print(
                f"{kind:8} {depth:2} layers: training loss {statistics.mean(losses):.4f}"
                f" ({min(losses):.4f} to {max(losses):.4f}), test {statistics.mean(top1s):.2%}"
                f" ({min(top1s):.2%} to {max(top1s):.2%}), {time.monotonic() - start:.0f} s",
                flush=True,
            )
            if flags.picture:
                done = [d for d in flags.depths if ("residual", d) in results]
                if done and kind == "residual":
                    draw(results, done, flags.picture)


if __name__ == "__main__":
    main()
