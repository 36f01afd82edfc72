"""The first hour on a GPU: what to make the defaults, the most telling measurements first.

    python benchmarks/gpu.py [--parts steps batch …] [--rounds 3] [--out gpu.jsonl]
    python benchmarks/gpu.py --smoke    # small sizes, also on a CPU: whether everything runs

Needs only this repository, jax, flax, optax, torch and torchvision. Every measurement is a process
of its own, in turns, and is printed and appended to the file at once, so that the program may be
stopped at any time. After each part it prints a table for RESULTS.md and the default that each row
supports; a gain of less than 3 % supports nothing.

Parts, in this order:

* ``steps``: training step of ResNet-50 in bfloat16, batch 256: the defaults, PyTorch (eager and
  compiled), XLA's own operations, and each hand-written gradient without the others.
* ``batch``: the same with 512 and 1,024 images.
* ``dispatch``: an epoch of ResNet-18 on images of 32 pixels in device memory, with 1, 8 and 32
  steps per dispatch (``steps_per_execution``).
* ``inference``: ResNet-50 in bfloat16, batches of 1, 32 and 256, compared with PyTorch.
* ``epoch``: an epoch on data of CIFAR-10's size, compared with PyTorch with the images on the
  device.
* ``flags``: the first part's step with flags of XLA.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sides

MIN_GAIN = 1.03
PARTS = ("steps", "batch", "dispatch", "inference", "epoch", "flags")
XLA_FLAGS = {
    "no excess precision": "--xla_allow_excess_precision=false",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "convolution fusion": "--xla_gpu_experimental_enable_conv_fusion=true",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
}


@dataclass(frozen=True)
class Case:
    """A measurement: a side of a benchmark, run in a process of its own.

    Attributes:
      name: its row of the table.
      script: the benchmark, in ``benchmarks/``.
      arguments: its flags.
      read: ``(result of the process) -> {"images_per_second": …}`` and further figures.
      xla_flags: added to XLA_FLAGS.
    """

    name: str
    script: str
    arguments: list[str]
    read: Callable[[dict], dict]
    xla_flags: str = ""


@dataclass
class Part:
    """Measurements that are compared with each other.

    Attributes:
      title: what is measured.
      cases: the measurements, the reference first.
      advice: ``(name, its speed relative to the reference) -> sentence``.
      results: of every case, by its name.
    """

    title: str
    cases: list[Case]
    advice: Callable[[str, float], str]
    results: dict[str, list[dict]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How large the measurements are."""

    model: str = "resnet50"
    size: int = 224
    dtype: str = "bfloat16"
    batch: int = 256
    more_batches: tuple[int, ...] = (512, 1024)
    steps: int = 20
    gradients: tuple[str, ...] = ("norm", "pooling", "relu")
    small_model: str = "resnet18"
    examples: int = 50_000
    small_batch: int = 500
    epochs: int = 3
    dispatch: tuple[int, ...] = (1, 8, 32)
    inference: tuple[int, ...] = (1, 32, 256)
    seconds: float = 3.0
    peers: tuple[str, ...] = ("torch", "torch-compiled")
    xla_flags: tuple[str, ...] = tuple(XLA_FLAGS)


# XLA:CPU computes bfloat16 in software, and PyTorch compiles for a minute.
SMOKE = Sizes(
    **{"model": "resnet18", "size": 32, "dtype": "float32", "batch": 2, "more_batches": (4,)},
    **{"steps": 1, "gradients": ("norm",), "small_model": "resnet20", "examples": 16},
    **{"small_batch": 8, "epochs": 1, "dispatch": (1, 2), "inference": (1,), "seconds": 0.1},
    **{"peers": ("torch",), "xla_flags": ("no excess precision",)},
)
TITLES = {"torch": "PyTorch", "torch-compiled": "PyTorch, compiled"}


def make_parts(sizes: Sizes) -> dict[str, Part]:
    """Return all parts by name."""
    where = f"{sizes.model}, {sizes.size} px, {sizes.dtype}"
    step, inference, epoch = (
        functools.partial(make, sizes) for make in (step_case, inference_case, epoch_case)
    )
    steps = [step("XLA's own operations", "ours-plain"), step("ours", "ours")]
    steps += [step(TITLES[peer], peer) for peer in sizes.peers]
    steps += [step(f"ours-{name}", f"ours-{name}") for name in sizes.gradients]
    parts = {
        "steps": Part(f"training step, {where}, batch {sizes.batch}", steps, advise_on_gradients)
    }
    for batch in sizes.more_batches:
        cases = [step("PyTorch", "torch", batch), step("ours", "ours", batch)]
        title = f"training step, {where}, batch {batch}"
        parts[f"batch-{batch}"] = Part(title, cases, advise_on_peer)
    small = f"{sizes.small_model}, {sizes.examples:,} images of 32 px on the device, {sizes.dtype}"
    cases = [epoch(f"{calls} steps per dispatch", "ours", calls) for calls in sizes.dispatch]
    parts["dispatch"] = Part(f"epoch of {small}", cases, advise_on_dispatch)
    for batch in sizes.inference:
        cases = [inference(TITLES[peer], peer, batch) for peer in sizes.peers]
        cases.append(inference("ours", "ours", batch))
        title = f"inference, {where}, batch {batch}"
        parts[f"inference-{batch}"] = Part(title, cases, advise_on_peer)
    cases = [epoch("PyTorch", "torch-resident"), epoch("ours", "ours")]
    parts["epoch"] = Part(f"epoch of {small}", cases, advise_on_peer)
    cases = [step("ours", "ours")]
    cases += [step(name, "ours", sizes.batch, XLA_FLAGS[name]) for name in sizes.xla_flags]
    title = f"training step, {where}, batch {sizes.batch}, flags of XLA"
    parts["flags"] = Part(title, cases, advise_on_flags)
    return parts


def step_case(sizes: Sizes, name: str, side: str, batch: int = 0, xla_flags: str = "") -> Case:
    """Return the measurement of a training step."""
    arguments = ["--side", side, "--model", sizes.model, "--size", sizes.size]
    arguments += ["--batch", batch or sizes.batch, "--dtype", sizes.dtype, "--steps", sizes.steps]
    return Case(name, "train_step.py", list(map(str, arguments)), read_step, xla_flags)


def inference_case(sizes: Sizes, name: str, side: str, batch: int) -> Case:
    """Return the measurement of inference."""
    arguments = ["--side", side, "--model", sizes.model, "--size", sizes.size, "--batch", batch]
    arguments += ["--dtype", sizes.dtype, "--seconds", sizes.seconds]
    read = functools.partial(read_inference, batch)
    return Case(name, "inference.py", list(map(str, arguments)), read)


def epoch_case(sizes: Sizes, name: str, side: str, calls: int = 0) -> Case:
    """Return the measurement of an epoch with ``calls`` steps per dispatch; 0: the default."""
    arguments = ["--side", side, "--model", sizes.small_model, "--examples", sizes.examples]
    arguments += ["--batch", sizes.small_batch, "--dtype", sizes.dtype, "--epochs", sizes.epochs]
    arguments += ["--steps-per-execution", calls]
    read = functools.partial(read_epoch, sizes.examples)
    return Case(name, "studies/cifar_epoch.py", list(map(str, arguments)), read)


def read_step(result):
    """Return the figures of ``train_step.py``."""
    return {
        "images_per_second": result["images_per_second"],
        "mfu": result["flops_share"],
        "compile_s": result["compile_s"],
        "peak_gib": result["peak_mib"] / 1024,
    }


def read_epoch(examples, result):
    """Return the figures of ``cifar_epoch.py``."""
    return {"images_per_second": examples / result["seconds"], "seconds": result["seconds"]}


def read_inference(batch, result):
    """Return the figures of ``inference.py``."""
    one = result[str(batch)]
    return {"images_per_second": 1e3 * batch / one["ms"], "p95_ms": one["p95_ms"]}


def advise_on_gradients(name: str, speed: float) -> str:
    """Return what a row of ``steps`` supports; ``speed`` is relative to XLA's own operations."""
    if name.startswith("PyTorch"):
        return ""
    if speed >= MIN_GAIN:
        return "keep" if name == "ours" else "keep this gradient"
    return "use XLA's own operations" if name == "ours" else "remove this gradient"


def advise_on_peer(name: str, speed: float) -> str:
    """Return whether we are slower than the peer."""
    return "slower than PyTorch: profile" if name == "ours" and speed < 1 else ""


def advise_on_dispatch(name: str, speed: float) -> str:
    """Return what a row of ``dispatch`` supports; ``speed`` is relative to one step."""
    return "worth it" if speed >= MIN_GAIN else "one step per dispatch is enough"


def advise_on_flags(name: str, speed: float) -> str:
    """Return what a row of ``flags`` supports; ``speed`` is relative to none."""
    return "document it" if speed >= MIN_GAIN else ""


def measure(case: Case) -> dict:
    """Run a measurement; return its figures, or ``{"failed": last line of its errors}``."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {case.xla_flags}".strip()
    paths = os.pathsep.join([str(sides.ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": flags}
    command = [sys.executable, str(sides.ROOT / "benchmarks" / case.script), *case.arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return {"failed": lines[-1][:200]}
    return case.read(json.loads(done.stdout.splitlines()[-1]))


def table(part: Part) -> str:
    """Return the medians of a part as Markdown, relative to its first case, with the advice."""
    head = "| | images/s | relative | more | supports |"
    lines = [f"\n{part.title}\n", head, "|---|---|---|---|---|"]
    reference = next(iter(part.results.values()), [])
    for name, runs in part.results.items():
        complete = [run for run in runs if "failed" not in run]
        if not complete:
            lines.append(f"| {name} | failed: {runs[-1]['failed']} | | | |")
            continue
        rates = [run["images_per_second"] for run in complete]
        speed = [
            run["images_per_second"] / other["images_per_second"]
            for run, other in zip(runs, reference, strict=False)
            if "failed" not in run and "failed" not in other
        ]
        more = {
            key: statistics.median(run[key] for run in complete)
            for key, value in complete[0].items()
            if key != "images_per_second" and value is not None
        }
        is_reference = runs is reference
        relative = sides.spread(speed, ".3f") if speed and not is_reference else ""
        advice = part.advice(name, statistics.median(speed)) if relative else ""
        figures = ", ".join(f"{key} {value:.3g}" for key, value in more.items())
        cells = (name, sides.spread(rates, ",.4g"), relative, figures, advice)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run_part(name: str, part: Part, rounds: int, out: str) -> None:
    """Measure a part in turns, print and record each result, and print the table."""
    for number in range(1, rounds + 1):
        for case in part.cases:
            runs = part.results.setdefault(case.name, [])
            if runs and "failed" in runs[-1]:
                continue  # it would fail again
            result = measure(case)
            runs.append(result)
            shown = ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in result.items()
            )
            print(f"{name}, round {number}, {case.name}: {shown}", flush=True)
            with open(out, "a") as file:
                file.write(json.dumps({"part": name, "case": case.name} | result) + "\n")
    print(table(part), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--rounds", type=sides.positive, default=3)
    parser.add_argument("--out", default="gpu.jsonl")
    parser.add_argument("--smoke", action="store_true", help="small sizes, one round")
    flags = parser.parse_args()
    print(sides.conditions(0), flush=True)
    if flags.smoke:
        print("a smoke test: its figures mean nothing", flush=True)
    for name, part in make_parts(SMOKE if flags.smoke else Sizes()).items():
        if not flags.parts or name.partition("-")[0] in flags.parts:
            run_part(name, part, 1 if flags.smoke else flags.rounds, flags.out)


if __name__ == "__main__":
    main()
