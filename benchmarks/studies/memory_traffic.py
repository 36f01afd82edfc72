"""Memory traffic of a training step or inference on a GPU, counted without a GPU.

    pip install 'jax[cuda12]'
    python benchmarks/studies/memory_traffic.py --model resnet50 --batch 256 \
        --sides gpu plain flax-example --flax-example ../flax/examples/imagenet
    python benchmarks/studies/memory_traffic.py --what inference --batch 64
    pip install 'jax[tpu]'
    python benchmarks/studies/memory_traffic.py --device v5e

XLA compiles for a described GPU: an H100, on which ResNets are expected to be limited by memory
bandwidth. Each kernel of the optimized program reads its operands and writes its results; these
bytes are counted. Caching between kernels and the speed of kernels are not modeled, so this
compares implementations and does not replace a measurement. Kernels are selected without autotuning
(``xla_gpu_autotune_level=0``), and outside command buffers so that they can be counted. For a TPU
the compiler itself estimates cycles and bytes, which takes many minutes. Sides: ``gpu`` and
``tpu``, the defaults of these backends; ``plain``, the same network with XLA's own operations;
``cpu``, with the CPU's implementations, in bfloat16 only of the ReLU; ``flax-example``, Flax's
ImageNet example.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from benchmarks import flax_example, sides, trainer
from benchmarks.studies import hlo
from flax_resnet import fold_batch_norm, init_variables, list_models, ops
from train.engine.devices import ShardMap
from train.engine.step import abstract_state, train_step

# NVIDIA H100 SXM as XLA's GpuTargetConfigProto, from the data sheets.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 threads_per_warp: 32
  threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472 l2_cache_size: 52428800
  memory_bandwidth: 3352320000000 device_memory_size: 84978434048
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
SIDES = ("gpu", "tpu", "plain", "cpu", "flax-example")
COMPILER = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_command_buffer": ""}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("step", "inference"), default="step")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--stem", choices=("imagenet", "cifar"))
    parser.add_argument("--size", type=sides.positive, default=224, help="pixels a side")
    parser.add_argument("--batch", type=sides.positive, default=256)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", choices=DEVICES, default="h100")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="default: the device's, plain")
    parser.add_argument("--flax-example", help="folder of Flax's example; see flax_example.py")
    parser.add_argument("--largest", type=int, default=0, help="kernels to list, largest first")
    flags = parser.parse_args()
    flags.sides = flags.sides or [{"h100": "gpu", "v5e": "tpu"}[flags.device], "plain"]
    if flags.model not in list_models():
        parser.error(f"no --model {flags.model}; there are {', '.join(list_models())}")
    if "flax-example" in flags.sides:
        if flags.stem or flags.what != "step" or not flags.flax_example:
            parser.error(
                "flax-example requires --flax-example FOLDER and --what step, without --stem"
            )
        flax_example.check(flags.flax_example, flags.model)
    jax.config.update("jax_platforms", "cpu")  # the GPU is only described
    devices = ShardMap(DEVICES[flags.device]().devices)
    title = f"{flags.what} of {flags.model}, {flags.size} px, batch {flags.batch}, {flags.dtype}"
    print(f"{title}; {devices.devices[0].device_kind}, described; {sides.conditions(0)}")
    for side in flags.sides:
        lowered = lower(flags, side, devices)
        if flags.device == "h100":
            show(side, lowered.compile(compiler_options=COMPILER), flags)
        else:
            show_estimate(side, lowered.compile(), flags)


def h100() -> topologies.TopologyDescription:
    """Return the description of one H100."""
    try:
        return topologies.get_topology_desc("h100", "cuda", target_config=H100, topology="1x1x1")
    except NotImplementedError:
        raise SystemExit(
            "XLA's compiler for CUDA is not installed: pip install 'jax[cuda12]'"
        ) from None


def v5e() -> topologies.TopologyDescription:
    """Return the description of one TPU v5e."""
    try:
        return topologies.get_topology_desc("v5e:1x1x1", "tpu", chips_per_host_bounds=(1, 1, 1))
    except RuntimeError as error:
        raise SystemExit(f"the compiler for TPUs: {error}; pip install 'jax[tpu]'") from None


DEVICES = {"h100": h100, "v5e": v5e}


def lower(flags, side: str, devices: ShardMap) -> jax.stages.Lowered:
    if side == "flax-example":
        return lowered_example(flags, devices)
    with ops.use_backend(side):
        lowered = lowered_step if flags.what == "step" else lowered_inference
        return lowered(flags, trainer.make_model(flags), devices)


def lowered_step(flags, model, devices):
    step_config = trainer.make_step_config(model)
    state = abstract_state(step_config, (flags.size, flags.size, 3))
    batch = {
        "image": jax.ShapeDtypeStruct((flags.batch, flags.size, flags.size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((flags.batch,), jnp.int32),
    }
    train = devices.train(lambda state, _, batch: train_step(step_config, state, batch))
    return train.lower(state, {}, batch)


def lowered_inference(flags, model, devices):
    """Return inference with weights and images of the compute type, as in ``inference.py``."""
    shape = (flags.size, flags.size, 3)
    variables = init_variables(model, 0, shape)
    if model.norm == "batch":
        model, variables = fold_batch_norm(model, variables)
    images = np.zeros((flags.batch, *shape))
    variables, images = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, flags.dtype), (variables, images)
    )
    evaluate = devices.evaluate(lambda variables, _, images: model.apply(variables, images))
    return evaluate.lower(variables, {}, images)


def lowered_example(flags, devices):
    create, step = flax_example.parts(flags.flax_example, flags.model, flags.size, flags.dtype)
    batch = jax.eval_shape(lambda: flax_example.batch(flags.batch, flags.size, flags.dtype))
    # Mapped like an evaluation, whose arguments are not donated; the example donates none either.
    run = devices.evaluate(lambda state, _, batch: step(state, batch))
    return run.lower(jax.eval_shape(create), {}, batch)


def show_estimate(side: str, compiled: jax.stages.Compiled, flags) -> None:
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())))
    moved = compiled.cost_analysis()["bytes accessed"] / flags.batch
    print(f"{side:14}{cycles / 1e6:.1f} million cycles, {moved / 1e6:.1f} MB per image", flush=True)


def show(side: str, compiled: jax.stages.Compiled, flags) -> None:
    """Print the total, each kind of kernel, and the memory usage."""
    kernels = hlo.kernels(compiled.as_text())
    total = sum(kernel.bytes for kernel in kernels)
    print(f"{side:14}{len(kernels)} kernels, {total / flags.batch / 1e6:.1f} MB per image")
    groups = defaultdict(list)
    for kernel in kernels:
        groups[group(kernel)].append(kernel.bytes)
    for name, moved in sorted(groups.items(), key=lambda item: -sum(item[1])):
        print(f"{'':14}{sum(moved) / flags.batch / 1e6:7.1f} MB by {len(moved)} {name}")
    for kernel in sorted(kernels, key=lambda kernel: -kernel.bytes)[: flags.largest]:
        read, written = (n / flags.batch / 1e6 for n in (kernel.read, kernel.written))
        print(f"{'':14}{read:7.2f} MB read, {written:5.2f} written: {kernel.name}")
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    print(f"{'':14}{held / 2**30:.2f} GiB of memory", flush=True)


def group(kernel: hlo.Kernel) -> str:
    """Return the kind of a kernel: XLA names fusions by operation, and calls by library."""
    name = kernel.name
    if "conv" in kernel.kind or "gemm" in name or "matmul" in kernel.kind:
        return "convolutions and matrix products"
    if "scatter" in name or "reduce_window" in name:
        return "poolings"
    if "reduce" in name:
        return "reductions with fused operations"
    if "copy" in name or "transpose" in name:
        return "copies and transpositions"
    return "elementwise kernels"


if __name__ == "__main__":
    main()
