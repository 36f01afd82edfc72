"""Images a second into the step, at CIFAR's size: held on the device against streamed.

    python benchmarks/resident_rate.py [--rounds 5]

10,000 PNGs of 32×32 in a folder, batches of 128. Both sides end with the batch on the device, as
the step sees it: streamed, decoded by Grain's threads and sent; resident, gathered from the one
array by a jitted function. Rounds are interleaved; printed are the medians and their ratio.
"""

import argparse
import os
import statistics
import tempfile
import time

import cv2
import jax
import numpy as np

from train.config.loading import default_config
from train.data.in_memory import gather
from train.data.loader import Split
from train.data.prefetch import ahead
from train.data.sampler import TrainOrder

BATCH = 128


def make_folder(root, count=10_000):
    rng = np.random.default_rng(0)
    for label in "abcde":
        os.makedirs(f"{root}/train/{label}")
    os.makedirs(f"{root}/val")
    for i in range(count):
        blobs = rng.integers(0, 256, (5, 5, 3), np.uint8)
        picture = cv2.resize(blobs, (32, 32), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(f"{root}/train/{'abcde'[i % 5]}/{i}.png", picture)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=60)
    flags = parser.parse_args()
    to_step = jax.jit(gather)
    with tempfile.TemporaryDirectory() as root:
        make_folder(root)
        config = default_config()
        config.dataset.update(name="folder", data_dir=root, image_size=32)
        splits, data = {}, {}
        for kind in ("always", "never"):
            config.data.resident = kind
            start = time.perf_counter()
            splits[kind] = Split(config, "train", training=True).load()
            data[kind] = jax.device_put(splits[kind].resident)
            print(f"resident={kind}: loaded in {time.perf_counter() - start:.1f} s")
        rates = {kind: [] for kind in splits}
        for _ in range(flags.rounds):
            for kind, split in splits.items():
                order = TrainOrder(len(split), BATCH, 0)
                batches = split.train_batches(order, range(flags.batches + 3))
                seen = ahead(batches, jax.device_put)
                for number, batch in enumerate(seen):
                    jax.block_until_ready(to_step(data[kind], batch))
                    if number == 2:  # compiled, and the threads are at work
                        start = time.perf_counter()
                seconds = time.perf_counter() - start
                rates[kind].append(flags.batches * BATCH / seconds)
    resident, streamed = (statistics.median(rates[kind]) for kind in ("always", "never"))
    print(f"resident {resident:,.0f} images/s, streamed {streamed:,.0f} images/s")
    print(f"{resident / streamed:.1f} times as many; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
