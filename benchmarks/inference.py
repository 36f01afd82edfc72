"""Inference throughput and latency compared with PyTorch, interleaved, in separate processes.

    python benchmarks/inference.py --model resnet18 --stem cifar --size 32 --batch 32 --cores 1
    python benchmarks/inference.py --model resnet50 --batch 1 8 64 256 --dtype bfloat16 \
        --peer torch torch-frozen torch-compiled
    python benchmarks/inference.py --model resnet50 --peer torch-frozen onnxruntime

Each call maps normalized float images on the device to logits: ``ours`` with jit and batch norm
folded into the convolutions (flax_resnet.fold_batch_norm); PyTorch in eval() and
torch.inference_mode, channels_last: eager, frozen by torch.jit (which folds batch norm and fuses),
or with torch.compile; ONNX Runtime with the network as train.export writes it with --raw, float32
only, on the CPU. In bfloat16 ours and PyTorch's weights are bfloat16. Every call is waited for, so
its time is the latency. Prints images per second, median and 95th percentile of the latency, and
the ratio for each round; on one core of a CPU, the ratio of CPU times also holds if other processes
use that core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sides

PEERS = ("torch", "torch-frozen", "torch-compiled", "onnxruntime")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--stem", choices=("imagenet", "cifar"))
    parser.add_argument("--size", type=sides.positive, default=224, help="pixels a side")
    parser.add_argument("--batch", type=sides.positive, nargs="+", default=[1, 32])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, default=3.0, help="timed, per process and batch")
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--rounds", type=sides.positive, default=5)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between rounds")
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=["torch"])
    parser.add_argument("--side", choices=("ours", *PEERS), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if "onnxruntime" in flags.peer and flags.dtype != "float32":
        parser.error("onnxruntime computes in float32")
    if flags.side:
        make = {"ours": make_ours, "onnxruntime": make_onnxruntime}.get(flags.side, make_torch)
        print(json.dumps({str(batch): measure(make(flags, batch), flags) for batch in flags.batch}))
        return
    passed = ["--model", flags.model, "--size", flags.size, "--batch", *flags.batch]
    passed += ["--dtype", flags.dtype, "--seconds", flags.seconds]
    passed += ["--stem", flags.stem] if flags.stem else []
    names = ("ours", *flags.peer)
    results = sides.interleave(
        __file__, names, list(map(str, passed)), flags.rounds, flags.cores, flags.pause
    )
    print(f"\n{flags.model}, {flags.size} px, {flags.dtype}; {sides.conditions(flags.cores)}")
    for batch in map(str, flags.batch):
        for name, runs in results.items():
            median, tail = ([run[batch][key] for run in runs] for key in ("ms", "p95_ms"))
            rates = [1e3 * int(batch) / ms for ms in median]
            first = statistics.median(run[batch]["first_s"] for run in runs)
            print(
                f"batch {batch:3} {name:15} {sides.spread(rates)} images/s, {sides.spread(median)}"
                f" ms per call, 95 % within {statistics.median(tail):.1f} ms, first {first:.1f} s"
            )
        for peer in flags.peer:
            pairs = list(zip(results["ours"], results[peer], strict=True))
            ratio, busy = (
                sides.spread([b[batch][key] / a[batch][key] for a, b in pairs], ".2f")
                for key in ("ms", "cpu_ms")
            )
            print(f"batch {batch:3} speed relative to {peer}: {ratio}, in CPU time {busy}")


def measure(call, flags) -> dict[str, float]:
    """Return latency (median, 95th percentile) and mean CPU time in ms, and the first call in s."""
    began = time.perf_counter()
    call()
    first = time.perf_counter() - began
    for _ in range(2):
        call()
    times, processor = [], time.process_time()
    until = time.perf_counter() + flags.seconds
    while len(times) < 5 or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return {
        "ms": statistics.median(times),
        "p95_ms": statistics.quantiles(times, n=20, method="inclusive")[-1],
        "cpu_ms": 1e3 * (time.process_time() - processor) / len(times),
        "first_s": first,
    }


def make_ours(flags, batch):
    from train.runtime import host

    host.keep_freed_memory()  # as the commands do
    import jax
    import jax.numpy as jnp

    from flax_resnet import fold_batch_norm

    dtype = jnp.dtype(flags.dtype)
    model, variables = our_network(flags)
    if model.norm == "batch":
        model, variables = fold_batch_norm(model, variables)
    variables = jax.device_put(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables))
    images = jax.device_put(normalized_images(flags, batch).astype(dtype))
    forward = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    return lambda: jax.block_until_ready(forward(variables, images))


def make_onnxruntime(flags, batch):
    from flax_resnet.preprocessing import Preprocessing
    from flax_resnet.runs import Run
    from train.export.onnx.session import open_session
    from train.export.onnx.writing import make_model

    model, variables = our_network(flags)
    size = flags.size
    preprocessing = Preprocessing(size, size, "bilinear", (0.5,) * 3, (0.25,) * 3)
    run = Run("", 0, "raw", model, variables, (), preprocessing, {"model.name": flags.model})
    exported = make_model(run, normalized=True, logits=True)
    session = open_session(exported.SerializeToString())
    images = normalized_images(flags, batch)
    return lambda: session.run(None, {"images": images})


def our_network(flags):
    from benchmarks import trainer
    from flax_resnet import init_variables

    model = trainer.make_model(flags)
    return model, init_variables(model, 0, (flags.size, flags.size, 3))


def normalized_images(flags, batch):
    import numpy as np

    shape = (batch, flags.size, flags.size, 3)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def make_torch(flags, batch):
    import os

    import torch

    from benchmarks import torch_nets

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    dtype = getattr(torch, flags.dtype)
    layout = {"memory_format": torch.channels_last}
    net = torch_nets.make(flags.model, flags.stem).eval().to(device, dtype, **layout)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, flags.size, flags.size, generator=generator)
    images = images.to(device, dtype, **layout)
    with torch.inference_mode():
        if flags.side == "torch-frozen":
            net = torch.jit.optimize_for_inference(torch.jit.trace(net, images))
        elif flags.side == "torch-compiled":
            net = torch.compile(net)

    def call():
        with torch.inference_mode():
            net(images)
        if cuda:
            torch.cuda.synchronize()

    return call


if __name__ == "__main__":
    main()
