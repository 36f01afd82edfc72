"""Time of each convolution of a network: this library, XLA and PyTorch, in milliseconds.

    python benchmarks/studies/conv_layers.py --model resnet50 --size 224 --batch 4 --cores 1
    python benchmarks/studies/conv_layers.py --model resnet20 --size 32 --batch 128 --onednn

Forward pass, gradient with respect to the images and gradient with respect to the kernel, float32,
channels last; with ``--onednn`` also XLA's with all convolutions by oneDNN. Every shape in
the network's forward pass is measured once and counted as often as it occurs. Minimum of several
calls, with the sides interleaved. This shows where the time of a training step goes; train_step.py
measures the step itself.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


# YNNPACK then computes products and sums, oneDNN all convolutions.
ONEDNN = {
    "xla_cpu_experimental_onednn_custom_call": True,
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--stem", choices=("imagenet", "cifar"))
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--onednn", action="store_true", help="also XLA with oneDNN")
    flags = parser.parse_args()
    if flags.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-flags.cores :])
    from train.runtime import host

    host.keep_freed_memory()
    total = collections.Counter()
    print("count, image, kernel, stride, groups: forward, gradients of images and kernel, in ms")
    for shape, count in convolutions(flags).items():
        x, kernel, stride, groups = shape
        line = f"{count:2} {x} {kernel} {stride} {groups:2}:"
        for side, milliseconds in measure(shape, flags).items():
            line += f"  {side} " + " ".join(f"{value:7.2f}" for value in milliseconds)
            for pass_, value in zip(("forward", "images", "kernel"), milliseconds, strict=True):
                total[side, pass_] += count * value
                total[side, "all"] += count * value
        print(line, flush=True)
    for side in dict.fromkeys(side for side, _ in total):
        passes = ("forward", "images", "kernel", "all")
        print(f"{side:6}", ", ".join(f"{name} {total[side, name]:.0f}" for name in passes), "ms")


def convolutions(flags) -> dict[tuple, int]:
    """Return the number of convolutions of each image shape, kernel shape, stride and groups."""
    import jax
    import jax.numpy as jnp

    from flax_resnet import create_model, layers

    counts = collections.Counter()
    original = layers.ops.conv_general_dilated

    def record(x, kernel, strides, padding, *arguments, feature_group_count=1, **options):
        counts[x.shape, kernel.shape, strides[0], feature_group_count] += 1
        return original(
            x,
            kernel,
            strides,
            padding,
            *arguments,
            feature_group_count=feature_group_count,
            **options,
        )

    layers.ops.conv_general_dilated = record
    model = create_model(flags.model, **({"stem": flags.stem} if flags.stem else {}))
    images = jnp.zeros((flags.batch, flags.size, flags.size, 3))
    jax.eval_shape(model.init, jax.random.key(0), images)
    layers.ops.conv_general_dilated = original
    return counts


def measure(shape, flags) -> dict[str, list[float]]:
    """Return the times of forward pass and both gradients by side."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    from flax_resnet import ops

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    x_shape, kernel_shape, stride, groups = shape
    pad = kernel_shape[0] // 2
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(s, np.float32) for s in (x_shape, kernel_shape))

    def conv(x, kernel):
        numbers = jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
        return ops.conv_general_dilated(
            x, kernel, (stride, stride), ((pad, pad),) * 2, None, None, numbers, groups
        )

    gradient = rng.standard_normal(jax.eval_shape(conv, x, kernel).shape, np.float32)
    arrays = [jnp.asarray(array) for array in (x, kernel, gradient)]

    def passes(options=None):
        x_gradient = jax.jit(lambda x, k, g: jax.vjp(lambda x: conv(x, k), x)[1](g)[0])
        kernel_gradient = jax.jit(lambda x, k, g: jax.vjp(lambda k: conv(x, k), k)[1](g)[0])
        forward = jax.jit(lambda x, k, g: conv(x, k))
        lowered = [f.lower(*arrays) for f in (forward, x_gradient, kernel_gradient)]
        compiled = [program.compile(options) for program in lowered]
        return [lambda f=f: f(*arrays).block_until_ready() for f in compiled]

    sides = {"ours": passes()}
    with ops.use_xla_ops():
        sides["xla"] = passes()
        if flags.onednn:
            sides["onednn"] = passes(ONEDNN)
    last = torch.channels_last
    tx, tg = (
        torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=last)
        for a in (x, gradient)
    )
    tk = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous(memory_format=last)

    def backward(images_gradient, kernel_gradient):
        settings = ([stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups)
        mask = [images_gradient, kernel_gradient, False]
        return torch.ops.aten.convolution_backward(tg, tx, tk, None, *settings, mask)

    sides["torch"] = [
        lambda: torch.nn.functional.conv2d(tx, tk, None, stride, pad, 1, groups),
        lambda: backward(True, False),
        lambda: backward(False, True),
    ]
    best = {side: [float("inf")] * 3 for side in sides}
    for _ in range(flags.calls + 1):
        for side, functions in sides.items():
            for i, function in enumerate(functions):
                began = time.perf_counter()
                function()
                best[side][i] = min(best[side][i], (time.perf_counter() - began) * 1e3)
    return best


if __name__ == "__main__":
    main()
