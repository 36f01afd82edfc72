"""Step time on 1, 2, 4 and 8 devices, and the share of communication.

    python benchmarks/studies/scaling.py --devices 1 2 4 8 --model resnet50 \
        --batch 256 --dtype bfloat16
    python benchmarks/studies/scaling.py --virtual --devices 1 2 4 8 --model resnet20 \
        --size 32 --batch 64

Weak scaling: ``--batch`` images per device. The trainer's step under pmap (or shard_map), with
random images on the devices. Communication is the additional time over the same step without its
means over the devices (gradients, statistics, metrics); both interleaved, medians.

With --virtual the devices are XLA's virtual CPU devices, which share its cores: one batch is
*divided* among them. That measures the overhead of dividing it, and checks that the loss after the
last step is the same as on one device. It does not show how accelerators scale.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import sides


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--virtual", action="store_true", help="virtual devices of the CPU")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=sides.positive, default=224, help="pixels a side")
    parser.add_argument(
        "--batch",
        type=sides.positive,
        default=64,
        help="per device; with --virtual: of all devices",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--parallel", choices=("pmap", "shard_map"), default="pmap")
    parser.add_argument("--sync-batch-norm", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps", type=sides.positive, default=10, help="timed steps of each")
    parser.add_argument("--rounds", type=sides.positive, default=3)
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.side:
        print(json.dumps(measure(flags)))
        return
    if flags.virtual and any(flags.batch % count for count in flags.devices):
        parser.error(f"--batch {flags.batch} does not divide among {flags.devices} devices")
    passed = [f"--{name}={getattr(flags, name.replace('-', '_'))}" for name in (
        "model", "size", "batch", "dtype", "parallel", "steps"
    )]  # fmt: skip
    passed += [] if flags.sync_batch_norm else ["--no-sync-batch-norm"]
    passed += ["--virtual"] if flags.virtual else []
    sizes = list(map(str, flags.devices))
    results = sides.interleave(__file__, sizes, passed, flags.rounds, flags.cores)
    print(
        f"\n{flags.model}, {flags.size} px, batch {flags.batch}"
        f" {'in total' if flags.virtual else 'per device'}, {flags.dtype}, {flags.parallel},"
        f" {'synchronized' if flags.sync_batch_norm else 'local'} batch norm,"
        f" {results[sizes[0]][0]['kind']};"
        f" {sides.conditions(flags.cores)}"
    )
    if flags.virtual:
        print("virtual CPU devices: this checks results and overhead, not scaling")
    first = statistics.median(run["ms"] for run in results[sizes[0]])
    for size, runs in results.items():
        times, without = ([run[key] for run in runs] for key in ("ms", "without_means_ms"))
        # Within each process, which interleaved the two steps.
        shares = [max(0.0, 1 - b / a) for a, b in zip(times, without, strict=True)]
        print(
            f"{size} devices: {sides.spread(times)} ms per step,"
            f" {first / statistics.median(times):.2f} times the speed of the first row;"
            f" communication {sides.spread(shares, '.1%')};"
            f" loss after {runs[0]['steps']} steps {runs[0]['loss']:.6f}"
        )
    losses = [run["loss"] for runs in results.values() for run in runs]
    if flags.virtual and flags.sync_batch_norm:
        apart = (max(losses) - min(losses)) / max(losses)
        print(f"relative difference of the losses between numbers of devices: {apart:.1e}")


def measure(flags) -> dict:
    """Return the time of a step in ms with and without means, on ``flags.side`` devices."""
    if flags.virtual:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "")
            + f" --xla_force_host_platform_device_count={flags.side}"
        )
    from train.runtime import host

    host.keep_freed_memory()
    import jax
    import jax.numpy as jnp

    from benchmarks import trainer
    from flax_resnet import create_model
    from train.engine.devices import Pmap, ShardMap
    from train.engine.step import AXIS

    if jax.device_count() < flags.side:
        raise SystemExit(f"{flags.side} devices requested, only {jax.device_count()} available")
    axis = AXIS if flags.sync_batch_norm else None
    step_config = trainer.make_step_config(
        create_model(flags.model, dtype=jnp.dtype(flags.dtype), axis_name=axis)
    )
    devices = {"pmap": Pmap, "shard_map": ShardMap}[flags.parallel](jax.devices()[: flags.side])
    total = flags.batch * (1 if flags.virtual else flags.side)
    batch = trainer.random_batch(total, flags.size)

    def timed(call):
        began = time.perf_counter()
        metrics = call()
        return 1e3 * (time.perf_counter() - began), metrics

    step, step_without = (trainer.Step(step_config, batch, devices) for _ in range(2))
    with without_means():
        timed(step_without)  # traced here
    timed(step)
    times = {"ms": [], "without_means_ms": []}
    for _ in range(flags.steps):
        milliseconds, metrics = timed(step)
        times["ms"].append(milliseconds)
        times["without_means_ms"].append(timed(step_without)[0])
    return {name: statistics.median(values) for name, values in times.items()} | {
        "loss": float(devices.fetch(metrics)["loss"]),
        "steps": flags.steps + 1,
        "kind": jax.devices()[0].device_kind,
    }


@contextlib.contextmanager
def without_means():
    """Omit means over the devices in steps that are traced inside."""
    import jax

    pmean, jax.lax.pmean = jax.lax.pmean, lambda tree, *_, **__: tree
    try:
        yield
    finally:
        jax.lax.pmean = pmean


if __name__ == "__main__":
    main()
