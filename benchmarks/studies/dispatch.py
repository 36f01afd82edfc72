"""Dispatch overhead of pmap and shard_map on one device compared with jit, in µs per call.

    python benchmarks/studies/dispatch.py [--rounds 7]

The state has the structure of ResNet-50's train state with scalar arrays, so that the computation
is negligible. Interleaved rounds of 200 calls; every call is waited for.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnet import create_model
from train.engine.devices import Pmap, ShardMap
from train.engine.step import AXIS

CALLS = 200


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    model = create_model("resnet50")
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    # Parameters, momentum and batch statistics.
    shapes = {"a": variables["params"], "b": variables["params"], "c": variables["batch_stats"]}
    state = jax.tree.map(lambda _: np.zeros((), np.float32), shapes)

    def plain(state, data, batch):
        state = jax.tree.map(lambda leaf: leaf + 1, state)
        return state, {"loss": batch["x"].sum()}

    def mapped(state, data, batch):
        state, metrics = plain(state, data, batch)
        return state, jax.lax.pmean(metrics, AXIS)

    batch = {"x": np.zeros(8, np.float32)}
    jitted = jax.jit(plain, donate_argnums=0)
    calls = {"jit": (jitted, jax.device_put(state), jax.device_put(batch))}
    for name, kind in (("pmap", Pmap), ("shard_map", ShardMap)):
        devices = kind(jax.local_devices()[:1])
        calls[name] = (devices.train(mapped), devices.replicate(state), devices.split(batch))

    times_us = {name: [] for name in calls}
    for number in range(flags.rounds + 1):
        for name, (step, held, batch) in calls.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                held, metrics = step(held, {}, batch)
                jax.block_until_ready(metrics)
            if number:  # the first round compiles
                times_us[name].append((time.perf_counter() - began) / CALLS * 1e6)
            calls[name] = (step, held, batch)
    leaves = len(jax.tree.leaves(state))
    for name, times in times_us.items():
        spread = f"{min(times):.0f} to {max(times):.0f}"
        print(f"{name:9} {statistics.median(times):6.0f} µs per call ({spread}), {leaves} arrays")


if __name__ == "__main__":
    main()
