"""Interrupt a run repeatedly in many ways, and compare its result with an uninterrupted run.

    python benchmarks/torture.py [--interruptions 50] [--steps 4000] [--seed 0]

The same command trains on the embedded digits each time. It is ended by SIGTERM, SIGINT, SIGUSR1 or
SIGKILL at a random time, is killed while saving, or runs with a file size limit below the size of a
checkpoint, which simulates a full disk. In between, the latest checkpoint is truncated or some of
its bytes are flipped. Prints the number of each, the number of repeated steps, and everything that
was lost. Nothing may be lost: the final parameters must be bit-identical to those of the
uninterrupted run.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from train.workdir.run_files import saved_steps  # noqa: E402

STEPS = 400
KEYS = (
    "--config.dataset.image_size=8",
    "--config.model.stage_sizes=1,1,1",
    f"--config.num_steps={STEPS}",
    "--config.checkpoint.every_steps=7",
    "--config.checkpoint.every_epochs=0",
    "--config.eval.every_epochs=2",
    "--config.log.every_steps=3",
    "--config.ema.decay=0.9",
)
ENDINGS = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGKILL", "killed in a save", "disk full")
CORRUPTIONS = ("truncated", "bytes flipped")
QUOTA = 50_000  # bytes per file; the largest file of a checkpoint exceeds it
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Torture:
    """A workdir and the command that trains in it."""

    def __init__(self, folder, name, steps=STEPS, keys=()):
        self.path = Path(folder, name)
        keys = (f"--config.num_steps={steps}", f"--config.dataset.data_dir={folder}/tfds", *keys)
        config = ("--config", "configs/resnet20_digits.py", "--workdir", str(self.path))
        self.command = [sys.executable, "-m", "train.main", *config, *KEYS, *keys]
        self.environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def start(self, quota=None):
        return subprocess.Popen(
            [sys.executable, "-c", LIMITED, str(quota), *self.command] if quota else self.command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows(self):
        try:
            text = (self.path / "metrics.jsonl").read_text()
        except OSError:
            return []
        rows = []
        for line in text.splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:  # being written
                pass
        return rows

    def last_step(self):
        return max((row["step"] for row in self.rows()), default=0)

    def saved(self):
        return saved_steps(str(self.path))

    def newest(self):
        return self.path / "checkpoints" / str(self.saved()[-1])


def interrupt(run, ending, rng):
    """Start the command and end it; return its status, its output, and whether it ran steps."""
    began = run.last_step()
    process = run.start(QUOTA if ending == "disk full" else None)
    stepped = False
    if ending != "disk full":
        if ending == "killed in a save":
            wait(process, lambda: saving(run))
        elif rng.random() < 0.25:
            time.sleep(rng.uniform(0, 6))  # while it starts or compiles
        else:
            target = began + rng.randrange(8, 25)
            wait(process, lambda: run.last_step() >= target)
            stepped = True
            time.sleep(rng.uniform(0, 0.05))
        number = "SIGKILL" if ending == "killed in a save" else ending
        process.send_signal(getattr(signal, number))
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout + stderr, stepped


def wait(process, condition, seconds=120):
    """Wait until a condition is true, the process ends, or time is up."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline and not condition():
        time.sleep(0.001)


def saving(run):
    folder = run.path / "checkpoints"
    return folder.is_dir() and any("tmp" in name for name in os.listdir(folder))


def corrupt(run, how, rng):
    """Corrupt the newest checkpoint if there is an older one to restore."""
    if len(run.saved()) < 2:
        return False
    # The corruption of files that nothing reads is not detected.
    unused_files = ("_CHECKPOINT_METADATA", "manifest.json")
    files = [p for p in run.newest().rglob("*") if p.is_file() and p.name not in unused_files]
    path = rng.choice([p for p in files if p.stat().st_size])
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: rng.randrange(len(content))]
    else:
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    path.write_bytes(content)
    return True


def state(run):
    """Return the arrays of the last checkpoint by name."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(
        run.path / "checkpoints", options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
        tree = manager.restore(run.saved()[-1], args=ocp.args.StandardRestore())
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(where): np.asarray(leaf) for where, leaf in leaves}


def differing_evaluations(run, other):
    """Return the steps whose evaluations differ between two runs."""
    losses = [
        {row["step"]: row["eval/loss"] for row in one.rows() if "eval/loss" in row}
        for one in (run, other)
    ]
    return sorted(
        step for step in losses[0] | losses[1] if losses[0].get(step) != losses[1].get(step)
    )


def torture(folder, endings, seed, steps=STEPS, corruption_probability=0.3, report=print, keys=()):
    """Interrupt a run and compare it with an uninterrupted one.

    Args:
      folder: directory of both runs.
      endings: interruptions, from ``ENDINGS``.
      seed: of all random choices.
      steps: length of the run.
      corruption_probability: probability of corrupting the newest checkpoint after an interruption.
      report: called with a line per interruption.
      keys: configuration flags that override ``KEYS``.

    Returns:
      Counts of interruptions and corruptions, number of repeated steps, and descriptions of losses.
    """
    rng = random.Random(seed)
    run = Torture(folder, "tortured", steps, keys)
    uninterrupted = Torture(folder, "uninterrupted", steps, keys)
    status = uninterrupted.start().wait()
    if status:
        raise SystemExit(f"the uninterrupted run ended with {status}")
    counts, repeated, lost = collections.Counter(), 0, []
    for number, ending in enumerate(endings):
        if run.saved() and run.saved()[-1] == steps:
            break
        before = run.saved()
        status, output, stepped = interrupt(run, ending, rng)
        counts[ending] += 1
        allowed = {"SIGKILL": (-9,), "killed in a save": (-9,), "disk full": (1,)}.get(
            ending,
            (75,) if stepped else (75, -15, -2, -10, 130),  # before handlers are installed
        )
        if status not in (*allowed, 0):
            lost.append(f"{ending} ended with {status}: {output[-500:]}")
        if "Traceback" in output and ending not in ("SIGINT",):
            lost.append(f"{ending} ended with a traceback: {output[-800:]}")
        after = run.saved()
        if before and (not after or after[-1] < before[-1]):
            if "damaged_checkpoints" not in output:
                lost.append(f"after {ending} step {before[-1]} was gone: {run.saved()}")
        repeated += max(0, run.last_step() - (run.saved() or [0])[-1])
        if rng.random() < corruption_probability:
            how = rng.choice(CORRUPTIONS)
            if corrupt(run, how, rng):
                counts[f"checkpoint {how}"] += 1
                newest, older = run.saved()[-1], run.saved()[-2]
                repeated += newest - older
        report(f"{number + 1:3}: {ending:16} status {status:3}, step {run.last_step()}", flush=True)
    if counts.total() < len(endings):
        lost.append(f"the run ended after {counts.total()} interruptions; give it more steps")
    process = run.start()
    _, stderr = process.communicate(timeout=600)
    if process.returncode:
        lost.append(f"the last command ended with {process.returncode}: {stderr[-500:]}")
    else:
        one, other = state(run), state(uninterrupted)
        lost += [name for name in other if not np.array_equal(one.get(name), other[name])]
        lost += [f"evaluation at {step}" for step in differing_evaluations(run, uninterrupted)]
    return counts, repeated, lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interruptions", type=int, default=50)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    endings = [ENDINGS[i % len(ENDINGS)] for i in range(flags.interruptions)]
    random.Random(flags.seed).shuffle(endings)
    with tempfile.TemporaryDirectory() as folder:
        counts, repeated, lost = torture(folder, endings, flags.seed, flags.steps)
    for name, count in sorted(counts.items()):
        print(f"{count:4} × {name}")
    print(f"{sum(counts.values())} interruptions and corruptions, {repeated} repeated steps")
    print(f"lost: {len(lost)}", *lost, sep="\n  ")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
