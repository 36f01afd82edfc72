"""Inference with batch norm folded into the convolutions, compared with unfolded batch norm.

    python benchmarks/studies/folding.py --model resnet50 --size 224 --batch 4 [--cores 1]

Both programs map the same uint8 images on the device to logits, as evaluation and prediction do,
with random weights and batch statistics; their calls alternate in one process. Prints the median
ratio of pairs of calls in wall-clock and CPU time (above 1: folded is faster), the time that
folding takes once, and the largest difference of the logits relative to the largest logit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import sides

RANGES = {"mean": (-0.5, 0.5), "var": (0.5, 1.5)}  # of the batch statistics


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--stem", choices=("imagenet", "cifar"))
    parser.add_argument("--size", type=sides.positive, default=224, help="pixels a side")
    parser.add_argument("--batch", type=sides.positive, default=4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, default=20.0, help="timed")
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    flags = parser.parse_args()
    if pin := sides.pin(flags.cores):
        pin()
    pairs, folding, difference = measure(flags)
    print(
        f"{flags.model}, {flags.size} px, batch {flags.batch}, {flags.dtype};"
        f" {sides.conditions(flags.cores)}"
    )
    for kind, (folded, unfolded) in pairs.items():
        ratios = [b / a for a, b in zip(folded, unfolded, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(
            f"{kind}: folded {statistics.median(folded):.2f} ms, unfolded"
            f" {statistics.median(unfolded):.2f} ms; speed of folded relative to unfolded"
            f" {middle:.3f} (quartiles {low:.3f}–{high:.3f}, {len(ratios)} pairs)"
        )
    print(f"folding: {folding:.0f} ms; difference of the logits: {difference:.1e}")


def measure(flags):
    """Return the times of the calls in ms, that of folding, and the difference of the logits."""
    from train.runtime import host

    host.keep_freed_memory()  # as the commands do
    import jax
    import jax.numpy as jnp
    import numpy as np

    from benchmarks import trainer
    from flax_resnet import fold_batch_norm, init_variables
    from flax_resnet.preprocessing import normalize

    model = trainer.make_model(flags)
    rng = np.random.default_rng(0)
    shape = (flags.size, flags.size, 3)
    variables = init_variables(model, 0, shape)
    variables["batch_stats"] = jax.tree.map_with_path(
        lambda path, leaf: rng.uniform(*RANGES[path[-1].key], leaf.shape).astype(np.float32),
        variables["batch_stats"],
    )
    start = time.perf_counter()
    folded = fold_batch_norm(model, variables)
    folding = 1e3 * (time.perf_counter() - start)
    images = jax.device_put(rng.integers(0, 256, (flags.batch, *shape), np.uint8))

    def program(model, variables):
        def forward(variables, images):
            images = normalize(images, trainer.MEAN, trainer.STD)
            return model.apply(variables, images).astype(jnp.float32)

        compiled, variables = jax.jit(forward), jax.device_put(variables)
        return lambda: jax.block_until_ready(compiled(variables, images))

    sides_ = program(*folded), program(model, variables)
    one, other = (np.asarray(call()) for call in sides_)
    difference = float(np.abs(one - other).max() / np.abs(other).max())
    wall, processor = ([], []), ([], [])
    until = time.perf_counter() + flags.seconds
    while len(wall[0]) < 5 or time.perf_counter() < until:
        order = (0, 1) if len(wall[0]) % 2 else (1, 0)  # neither is always the first
        for side in order:
            began = time.perf_counter(), time.process_time()
            sides_[side]()
            wall[side].append(1e3 * (time.perf_counter() - began[0]))
            processor[side].append(1e3 * (time.process_time() - began[1]))
    return {"wall-clock time": wall, "CPU time": processor}, folding, difference


if __name__ == "__main__":
    main()
