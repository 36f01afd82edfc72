"""What a step costs on 1, 2, 4 and 8 devices, and the share of it that communication takes.

    python benchmarks/scaling.py --devices 1 2 4 8 --model resnet50 --batch 256 --dtype bfloat16
    python benchmarks/scaling.py --virtual --devices 1 2 4 8 --model resnet20 --size 32 --batch 64

Weak scaling: each device has ``--batch`` images. The trainer's own step under pmap (or shard_map),
synthetic images on the devices. Communication is what the step takes longer than the same step
whose means over the devices (gradients, statistics, metrics) are left out; both in turn, medians.

With --virtual the devices are XLA's virtual ones of the CPU, which share its cores: then one batch
is *divided* among them, and what is shown is the overhead of dividing it, and that the loss of the
last step is the same as on one device. It says nothing of how accelerators scale.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sides


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--virtual", action="store_true", help="virtual devices of the CPU")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=sides.positive, default=224, help="pixels a side")
    parser.add_argument(
        "--batch", type=sides.positive, default=64, help="of a device; --virtual: of all"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--parallel", choices=("pmap", "shard_map"), default="pmap")
    parser.add_argument("--batch-norm", choices=("local", "global"), default="global")
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
        "model", "size", "batch", "dtype", "parallel", "batch-norm", "steps"
    )]  # fmt: skip
    passed += ["--virtual"] if flags.virtual else []
    sizes = list(map(str, flags.devices))
    results = sides.interleave(__file__, sizes, passed, flags.rounds, flags.cores)
    print(
        f"\n{flags.model}, {flags.size} px, batch {flags.batch}"
        f" {'in all' if flags.virtual else 'a device'}, {flags.dtype}, {flags.parallel},"
        f" {flags.batch_norm} batch norm, {results[sizes[0]][0]['kind']};"
        f" {sides.conditions(flags.cores)}"
    )
    if flags.virtual:
        print("virtual devices of a CPU: a check of results and overhead, not of scaling")
    first = statistics.median(run["ms"] for run in results[sizes[0]])
    for size, runs in results.items():
        times, alone = ([run[key] for run in runs] for key in ("ms", "alone_ms"))
        # Of each process, whose two steps ran in turn.
        shares = [max(0.0, 1 - b / a) for a, b in zip(times, alone, strict=True)]
        print(
            f"{size} devices: {sides.spread(times)} ms a step, the first row's"
            f" {first / statistics.median(times):.2f} times as fast; communication"
            f" {sides.spread(shares, '.1%')};"
            f" loss after {runs[0]['steps']} steps {runs[0]['loss']:.6f}"
        )
    losses = [run["loss"] for runs in results.values() for run in runs]
    if flags.virtual and flags.batch_norm == "global":
        apart = (max(losses) - min(losses)) / max(losses)
        print(f"losses differ by {apart:.1e} of their value between numbers of devices")


def measure(flags) -> dict:
    """Milliseconds of a step with and without communication, on ``flags.side`` devices."""
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
        raise SystemExit(f"{flags.side} devices are asked for, and there are {jax.device_count()}")
    axis = AXIS if flags.batch_norm == "global" else None
    step_config = trainer.make_task(
        create_model(flags.model, dtype=jnp.dtype(flags.dtype), axis_name=axis)
    )
    devices = {"pmap": Pmap, "shard_map": ShardMap}[flags.parallel](jax.devices()[: flags.side])
    total = flags.batch * (1 if flags.virtual else flags.side)
    batch = trainer.random_batch(total, flags.size)

    def run(step):
        began = time.perf_counter()
        metrics = step()
        return 1e3 * (time.perf_counter() - began), metrics

    together, alone = (trainer.Step(step_config, batch, devices) for _ in range(2))
    with without_means():
        run(alone)  # traced here
    run(together)
    times = {"ms": [], "alone_ms": []}
    for _ in range(flags.steps):
        milliseconds, metrics = run(together)
        times["ms"].append(milliseconds)
        times["alone_ms"].append(run(alone)[0])
    return {name: statistics.median(values) for name, values in times.items()} | {
        "loss": float(devices.fetch(metrics)["loss"]),
        "steps": flags.steps + 1,
        "kind": jax.devices()[0].device_kind,
    }


@contextlib.contextmanager
def without_means():
    """Has what is traced within leave out its means over the devices."""
    import jax

    pmean, jax.lax.pmean = jax.lax.pmean, lambda tree, *_, **__: tree
    try:
        yield
    finally:
        jax.lax.pmean = pmean


if __name__ == "__main__":
    main()
