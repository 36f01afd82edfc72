"""Time of a sweep in relation to that of its runs as single commands, one after another.

    python benchmarks/sweep.py [--rounds 3] [--epochs 4] [--cores 2] [--warm]

Three learning rates and two seeds of ``resnet20_digits``. In each round both sides run once, in
alternating order, with prepared data. Each side starts with an empty compilation cache, which its
processes share; with ``--warm`` both use one that both sides have filled. Times are of the clock
and of the processor, including the start of each process. The final evaluations of both sides must
be equal.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sides

RATES, SEEDS = ("0.02", "0.05", "0.1"), 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=sides.positive, default=3)
    parser.add_argument("--epochs", type=sides.positive, default=4)
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--warm", action="store_true", help="with filled compilation caches")
    flags = parser.parse_args()
    times = {commands: [], sweep: []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        run(flags, scratch, "train.main", scratch / "first", "--config.num_steps=1")
        if flags.warm:
            for side in times:
                side(flags, scratch)
        for number in range(flags.rounds):
            results = {}
            for side in sorted(times, key=lambda side: side.__name__, reverse=number % 2 == 1):
                shutil.rmtree(scratch / "runs", ignore_errors=True)
                if not flags.warm:
                    shutil.rmtree(scratch / "cache", ignore_errors=True)
                began, cpu = time.perf_counter(), os.times()
                results[side] = side(flags, scratch)
                wall, cpu = time.perf_counter() - began, used(os.times()) - used(cpu)
                times[side].append((wall, cpu))
                print(
                    f"round {number + 1}, {side.__name__}: {wall:.1f} s, CPU {cpu:.1f} s",
                    flush=True,
                )
            if results[commands] != results[sweep]:
                raise SystemExit(f"the results differ: {results}")
    print(f"\n{sides.conditions(flags.cores)}; {'warm' if flags.warm else 'cold'} caches")
    for unit, name in enumerate(("clock", "processor")):
        pairs = [(s[unit], c[unit]) for s, c in zip(times[sweep], times[commands], strict=True)]
        ratios = sides.spread([ours / theirs for ours, theirs in pairs], ".2f")
        seconds = [statistics.median(side) for side in zip(*pairs, strict=True)]
        print(f"{name}: sweep {seconds[0]:.1f} s, commands {seconds[1]:.1f} s, ratio {ratios}")


def commands(flags, scratch: Path) -> list[float]:
    """Train the runs as single commands; return their final losses."""
    losses = []
    for rate, seed in itertools.product(RATES, range(SEEDS)):
        keys = f"--config.schedule.learning_rate={rate}", f"--config.seed={seed}"
        path = scratch / "runs" / f"{rate}_{seed}"
        losses.append(run(flags, scratch, "train.main", path, *keys)["loss"])
    return losses


def sweep(flags, scratch: Path) -> list[float]:
    """Train the runs as a sweep; return their final losses."""
    path = scratch / "runs"
    grid = f"schedule.learning_rate={','.join(RATES)}"
    run(flags, scratch, "train.sweep", path, "--grid", grid, "--seeds", str(SEEDS))
    losses = []
    for rate, seed in itertools.product(RATES, range(SEEDS)):
        lines = (path / f"learning_rate={rate},seed={seed}" / "metrics.jsonl").read_text()
        losses.append(json.loads(lines.splitlines()[-1])["eval/loss"])
    return losses


def run(flags, scratch: Path, module: str, workdir: Path, *arguments: str) -> dict:
    """Run a command to its end; return the JSON of its last line."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(sides.ROOT), os.environ.get("PYTHONPATH", "")]),
        "TFDS_DATA_DIR": str(scratch / "data"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "-m", module, "--config", "resnet20_digits"]
    command += ["--workdir", str(workdir), f"--config.num_epochs={flags.epochs}", *arguments]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=sides.pin(flags.cores),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def used(spent: os.times_result) -> float:
    """Return the processor time of the processes that have ended, in seconds."""
    return spent.children_user + spent.children_system


if __name__ == "__main__":
    main()
