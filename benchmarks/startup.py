"""Time from the command to the first finished training step, cold and warm.

    python benchmarks/startup.py [--config configs/resnet20_digits.py] [--rounds 5] [--cores 2]

Cold: with an empty compilation cache; warm: with the cache of an earlier run; both with prepared
data. Each start is the user's command in a process that ends after its first step; cold and warm
alternate. The parts are delimited by console output: *open* until the summary of data and model
(imports, opening the data, initial weights), *load* until compilation starts (decoding the data,
transferring data and state to the devices), *step* until the first step is done (tracing, compiling
or loading the compiled program, the step itself).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import sides

MARKS = {"open": b"data: ", "load": b"compiling", "step": b" done in "}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/resnet20_digits.py")
    parser.add_argument("--rounds", type=sides.positive, default=5)
    parser.add_argument("--cores", type=int, default=0, help="0 for all")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between rounds")
    flags = parser.parse_args()
    times = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        start(flags, scratch)  # prepares the data and fills the page cache
        for number in range(1, flags.rounds + 1):
            for kind, starts in times.items():
                if kind == "cold":
                    shutil.rmtree(scratch / "cache", ignore_errors=True)
                starts.append(start(flags, scratch))
                parts = ", ".join(f"{part} {value:.1f} s" for part, value in starts[-1].items())
                print(f"round {number} of {flags.rounds}, {kind}: {parts}", flush=True)
            time.sleep(flags.pause)
    print(f"\n{flags.config}; {sides.conditions(flags.cores)}")
    for kind, starts in times.items():
        parts = ", ".join(
            f"{part} {sides.spread([one[part] for one in starts])}" for part in starts[0]
        )
        print(f"{kind}: {parts} s")


def start(flags, scratch: Path) -> dict[str, float]:
    """Return the seconds of each part of a start and in all, using the caches in ``scratch``."""
    workdir = scratch / "run"
    shutil.rmtree(workdir, ignore_errors=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(sides.ROOT), os.environ.get("PYTHONPATH", "")]),
        "TFDS_DATA_DIR": str(scratch / "data"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or the trainer's code is compiled each time
    command = [sys.executable, "-m", "train.main", "--config", str(sides.ROOT / flags.config)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--workdir", str(workdir)],
        stdout=subprocess.PIPE,
        env=environment,
        preexec_fn=sides.pin(flags.cores),
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    output, at = b"", {}
    while len(at) < len(MARKS):
        part = process.stdout.read(4096)
        if not part:
            raise SystemExit(f"the run ended before its first step: {output.decode()}")
        output += part
        for mark, words in MARKS.items():
            if words in output:
                at.setdefault(mark, time.perf_counter() - began)
    # Let the run write its first images and metrics, and exit cleanly.
    process.send_signal(signal.SIGTERM)
    process.communicate()
    parts = list(at)
    spent = {part: at[part] - (at[parts[i - 1]] if i else 0) for i, part in enumerate(parts)}
    return spent | {"all": at["step"]}


if __name__ == "__main__":
    main()
