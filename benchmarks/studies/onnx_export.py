"""ONNX files: every network's logits, and times of float32 and int8 compared with JAX.

    python benchmarks/studies/onnx_export.py networks
    python benchmarks/studies/onnx_export.py speed --model resnet50 --size 224 --batch 1 8

``networks`` converts every network of the table with few channels and prints the largest difference
of its logits from JAX's, relative to the largest logit. ``speed`` compares, in one process and in
turns, ONNX Runtime on the float32 and the int8 file, and what ``--format stablehlo`` writes, under
jax.jit; random weights, calibrated with random images, so that accuracy means nothing here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ["JAX_PLATFORMS"] = "cpu"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    networks = commands.add_parser("networks")
    networks.add_argument("names", nargs="*", help="default: all")
    speed = commands.add_parser("speed")
    speed.add_argument("--model", default="resnet50")
    speed.add_argument("--size", type=int, default=224, help="pixels a side")
    speed.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    speed.add_argument("--rounds", type=int, default=9)
    flags = parser.parse_args()
    if flags.command == "networks":
        compare_networks(flags.names)
    else:
        compare_speed(flags)


def compare_networks(names):
    from flax_resnet.variants import VARIANTS
    from tests.train.export.onnx.networks import check_network, narrow

    names = names or list(VARIANTS)
    differences = {}
    for name in names:
        start = time.perf_counter()
        model, differences[name] = check_network(narrow(name))
        seconds = time.perf_counter() - start
        nodes = len(model.graph.node)
        print(f"{name:24} {differences[name]:.1e} {nodes:6} nodes {seconds:6.1f} s", flush=True)
    worst = max(differences, key=differences.get)
    print(f"{len(names)} networks, largest difference {differences[worst]:.1e} ({worst})")


def compare_speed(flags):
    import jax
    import numpy as np
    import onnxruntime

    from benchmarks import sides
    from flax_resnet import create_model
    from flax_resnet.preprocessing import Preprocessing
    from flax_resnet.runs import Run
    from tests.flax_resnet.peers import randomized
    from train.export.formats import write_stablehlo
    from train.export.onnx.quantization import write_quantized
    from train.export.onnx.writing import write_onnx

    model = create_model(flags.model)
    preprocessing = Preprocessing(flags.size, flags.size, "bilinear", (0.5,) * 3, (0.25,) * 3)
    variables = randomized(model)
    config = {"model.name": flags.model}
    run = Run("", 0, "raw", model, variables, (), preprocessing, config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (max(32, *flags.batch), *preprocessing.shape), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, f"{name}.onnx") for name in ("float32", "int8")}
        write_onnx(run, paths["float32"])
        write_quantized(paths["float32"], paths["int8"], images[:32])
        write_stablehlo(run, os.path.join(folder, "stablehlo"))
        exported = jax.export.deserialize(bytearray(Path(folder, "stablehlo").read_bytes()))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        provider = ["CPUExecutionProvider"]
        calls = {
            f"onnxruntime {name}": session_call(
                onnxruntime.InferenceSession(path, options, providers=provider)
            )
            for name, path in paths.items()
        }
    call = jax.jit(exported.call)
    calls["stablehlo, jax.jit"] = lambda batch: jax.block_until_ready(call(batch))
    print(f"{flags.model}, {flags.size} px; {sides.conditions(0)}")
    for size in flags.batch:
        batch, times = images[:size], {name: [] for name in calls}
        for function in calls.values():  # compile, warm up
            function(batch)
        for _ in range(flags.rounds):
            for name, function in calls.items():
                start = time.perf_counter()
                function(batch)
                times[name].append(time.perf_counter() - start)
        base = times["onnxruntime float32"]
        for name, values in times.items():
            ratios = [ours / other for ours, other in zip(base, values, strict=True)]
            median = 1000 * statistics.median(values)
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            print(f"batch {size:3} {name:20} {median:8.1f} ms, {spread} times as fast as float32")


def session_call(session):
    return lambda batch: session.run(None, {"images": batch})


if __name__ == "__main__":
    main()
