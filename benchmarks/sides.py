"""Helpers for paired benchmarks: interleaved processes of several sides, and their statistics."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def interleave(
    script: str,
    sides: Sequence[str],
    arguments: Sequence[str],
    rounds: int,
    cores: int,
    pause: float = 0.0,
):
    """Run ``script --side SIDE`` for each side in turn, in ``rounds`` rounds.

    Args:
      script: a program that prints a JSON object as its last line.
      sides: values of ``--side``.
      arguments: further arguments.
      rounds: number of processes per side.
      cores: each process uses the last ``cores`` of this process's cores; 0: all.
      pause: seconds between rounds.

    Returns:
      ``{side: [object, …]}``.
    """
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2"}
    results = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        time.sleep(pause if number > 1 else 0)
        for side in sides:
            command = [sys.executable, script, "--side", side, *arguments]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=pin(cores)
            )
            if done.returncode:
                raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number} of {rounds}, {side}: {done.stdout.splitlines()[-1]}", flush=True)
    return results


def positive(text: str) -> int:
    """Parse a positive integer, for argparse."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def pin(cores: int) -> Callable[[], None] | None:
    """Return a function that limits a new process to the last ``cores`` cores; None for all."""
    allowed = sorted(os.sched_getaffinity(0))[-cores:] if cores else None
    return (lambda: os.sched_setaffinity(0, allowed)) if allowed else None


def ratios(results: dict[str, list[dict]], ours: str, peer: str, key: str) -> list[float]:
    """Return the ratio of ``key``, ours to the peer's, for each round."""
    return [a[key] / b[key] for a, b in zip(results[ours], results[peer], strict=True)]


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Return median, minimum and maximum, such as ``101.2 (99.8–103.0)``."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def conditions(cores: int) -> str:
    """Return the machine, its load and the relevant versions in one line."""
    packages = []
    for name in ("jax", "jaxlib", "flax", "torch", "onnxruntime"):
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    used = f"{cores or 'all'} of {len(os.sched_getaffinity(0))} cores"
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {used}, load {load:.1f}, Python {platform.python_version()}, "
        + ", ".join(packages)
    )
