"""Training step in images per second compared with peers, interleaved, in separate processes.

    python benchmarks/train_step.py --model resnet18 --stem cifar --size 32 --batch 32 --cores 1
    python benchmarks/train_step.py --model resnet50 --size 224 --batch 256 --dtype bfloat16 \
        --peer torch torch-compiled flax-example ours-plain \
        --flax-example ../flax/examples/imagenet

A step is the forward pass, cross-entropy, the backward pass, SGD with momentum and weight decay,
and the update of batch norm, on random images on the device. ``ours`` is the trainer's own step,
from uint8 images and with pmap; the peers take normalized float images: PyTorch channels_last, with
autocast for bfloat16, and Flax's ImageNet example unchanged, with Nesterov momentum and weight
decay in the loss. Prints images per second, compile time, peak memory, the share of the device's
peak FLOP/s (MFU) if known, and the ratio for each round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import flax_example, sides

PEERS = ("torch", "torch-compiled", "flax-example")
# Operations of this library for other backends than the default: XLA's own, those for CPUs without
# the library oneDNN, and those for GPUs; XLA's oneDNN by a flag.
PEERS += ("ours-plain", "ours-cpu", "ours-gpu", "ours-xla-onednn")
# XLA:CPU then leaves convolutions that YNNPACK does not take to oneDNN (training_steps.md).
ONEDNN = "--xla_cpu_experimental_onednn_custom_call=true"
# GPUs: each gradient of flax_resnet.ops without the others, for benchmarks/gpu.py.
GRADIENTS = ("norm", "pooling", "relu")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--stem", choices=("imagenet", "cifar"))
    parser.add_argument("--size", type=sides.positive, default=224, help="pixels a side")
    parser.add_argument("--batch", type=sides.positive, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=sides.positive, default=10, help="timed steps per process")
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--rounds", type=sides.positive, default=5)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=["torch"])
    parser.add_argument("--flax-example", help="folder of Flax's example; see flax_example.py")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.side:
        print(json.dumps(SIDES[flags.side](flags)))
        return
    if "flax-example" in flags.peer:
        if flags.stem or not flags.flax_example:
            parser.error("--peer flax-example requires --flax-example FOLDER, without --stem")
        flax_example.check(flags.flax_example, flags.model)
    passed = ["--model", flags.model, "--size", flags.size, "--batch", flags.batch]
    passed += ["--dtype", flags.dtype, "--steps", flags.steps]
    passed += ["--stem", flags.stem] if flags.stem else []
    passed += ["--flax-example", flags.flax_example] if flags.flax_example else []
    names = ("ours", *flags.peer)
    results = sides.interleave(__file__, names, list(map(str, passed)), flags.rounds, flags.cores)
    print(f"\n{flags.model}, {flags.size} px, batch {flags.batch}, {flags.dtype}; ", end="")
    print(sides.conditions(flags.cores))
    for name, runs in results.items():
        rates, memory, compiled = (
            [run[key] for run in runs] for key in ("images_per_second", "peak_mib", "compile_s")
        )
        line = f"{name:15} {sides.spread(rates)} images/s, first step after"
        line += f" {statistics.median(compiled):.1f} s, {statistics.median(memory):.0f} MiB at peak"
        if runs[0]["flops_share"]:
            line += f", {statistics.median(run['flops_share'] for run in runs):.0%} of peak FLOP/s"
        print(line)
    for peer in flags.peer:
        ratio = sides.ratios(results, "ours", peer, "images_per_second")
        print(f"speed relative to {peer}: {sides.spread(ratio, '.2f')}")


def timed(step, steps: int) -> list[float]:
    """Return the seconds of each of ``steps`` calls; ``step`` waits for its result."""
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return seconds


def summary(flags, seconds, compile_s, peak_bytes, device="", flops=0.0):
    """Return the result of a side. On a CPU the peak is that of the process with libraries."""
    median = statistics.median(seconds)
    peak_bytes = peak_bytes or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    from train.engine import mfu  # imports JAX, which must not count as memory of PyTorch

    peak = mfu.peak_flops(device, flags.dtype)
    return {
        "images_per_second": flags.batch / median,
        "compile_s": compile_s,
        "peak_mib": peak_bytes / 2**20,
        "flops_share": flops / median / peak if peak else None,
    }


def ours(flags, backend=None, gradient=None, xla_flags=""):
    """Measure the trainer's step with operations for ``backend``; None: the default.

    With ``gradient``, one of GRADIENTS, these are XLA's except for that gradient of GPUs.
    """
    if xla_flags:
        os.environ["XLA_FLAGS"] = f"{xla_flags} {os.environ.get('XLA_FLAGS', '')}"
    from train.runtime import host

    host.keep_freed_memory()  # as train.main does
    import optax

    from benchmarks import trainer
    from flax_resnet import ops

    if gradient:
        keep_one_gradient(gradient)
    with ops.use_backend(backend) if backend else contextlib.nullcontext():
        model = trainer.make_model(flags)
        optimizer = optax.chain(
            optax.add_decayed_weights(1e-4),
            optax.trace(0.9),
            optax.scale_by_learning_rate(trainer.SCHEDULE),
        )
        step_config = trainer.make_step_config(model, optimizer=optimizer)
        step = trainer.Step(step_config, trainer.random_batch(flags.batch, flags.size))
        return measured_by_jax(flags, step, model)


def keep_one_gradient(name):
    """Replace all hand-written gradients of GPUs but one by XLA's."""
    from flax_resnet import ops
    from flax_resnet.ops import dispatch

    never = lambda x: False  # noqa: E731
    if name != "norm":
        ops.uses_custom_gradient = never
    if name != "pooling":
        dispatch.uses_custom_gradient = never
    if name != "relu":
        ops.relu_of_sum = ops.relu


def flax_side(flags):
    step = flax_example.make(flags.flax_example, flags.model, flags.size, flags.batch, flags.dtype)
    import jax

    from flax_resnet import create_model

    return measured_by_jax(flags, lambda: jax.block_until_ready(step()), create_model(flags.model))


def measured_by_jax(flags, step, model):
    import jax

    from flax_resnet import summarize

    (compile_s,) = timed(step, 1)
    timed(step, 2)
    seconds = timed(step, flags.steps)
    device = jax.local_devices()[0]
    memory = device.memory_stats() or {}
    return summary(
        flags,
        seconds,
        compile_s,
        memory.get("peak_bytes_in_use"),
        device.device_kind,
        # Two operations per multiply-add; the backward pass costs twice the forward pass.
        6 * summarize(model, flags.size).multiply_adds * flags.batch,
    )


def torch_side(flags):
    import torch

    from benchmarks import torch_nets

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    net = torch_nets.make(flags.model, flags.stem).to(device, memory_format=torch.channels_last)
    if flags.side == "torch-compiled":
        net = torch.compile(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(flags.batch, 3, flags.size, flags.size, generator=generator)
    images = images.to(device, memory_format=torch.channels_last)
    labels = (torch.arange(flags.batch) % 10).to(device)
    low = flags.dtype == "bfloat16"

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()

    (compile_s,) = timed(step, 1)
    timed(step, 2)
    seconds = timed(step, flags.steps)
    peak = torch.cuda.max_memory_allocated() if cuda else None
    name = torch.cuda.get_device_name() if cuda else ""
    flops = 0.0
    if cuda:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            step()
        flops = counter.get_total_flops()
    return summary(flags, seconds, compile_s, peak, name, flops)


SIDES = {
    "ours": ours,
    "ours-plain": partial(ours, backend="plain"),
    "ours-gpu": partial(ours, backend="gpu"),
    "ours-cpu": partial(ours, backend="cpu"),
    "ours-xla-onednn": partial(ours, backend="cpu", xla_flags=ONEDNN),
    **{f"ours-{name}": partial(ours, backend="gpu", gradient=name) for name in GRADIENTS},
    "torch": torch_side,
    "torch-compiled": torch_side,
    "flax-example": flax_side,
}

if __name__ == "__main__":
    main()
