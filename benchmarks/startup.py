"""Time from the command to the first finished training step, cold and warm.

    python benchmarks/startup.py [--config configs/resnet20_digits.py] [--rounds 5] [--cores 2]

Cold is with an empty cache of compiled programs, warm with one that a run before left; both with
the data prepared, as on any start but the first. Each start is the user's own command, a process
that is ended once its first step is done; cold and warm in turn. The parts are times at which it
says something: *open* until it tells of data and model (imports, opening the data, initial
weights), *load* until it begins to compile (decoding the data, putting data and state on the
devices), *step* until the first step is done (tracing, compiling or loading, the step itself).
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
    found = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        start(flags, scratch)  # prepares the data, has the system read what is imported
        for number in range(1, flags.rounds + 1):
            for kind, times in found.items():
                if kind == "cold":
                    shutil.rmtree(scratch / "cache", ignore_errors=True)
                times.append(start(flags, scratch))
                told = ", ".join(f"{part} {value:.1f} s" for part, value in times[-1].items())
                print(f"round {number} of {flags.rounds}, {kind}: {told}", flush=True)
            time.sleep(flags.pause)
    print(f"\n{flags.config}; {sides.conditions(flags.cores)}")
    for kind, times in found.items():
        parts = ", ".join(
            f"{part} {sides.spread([one[part] for one in times])}" for part in times[0]
        )
        print(f"{kind}: {parts} s")


def start(flags, scratch: Path) -> dict[str, float]:
    """Seconds of each part of a start, and of all together, with what ``scratch`` holds."""
    workdir = scratch / "run"
    shutil.rmtree(workdir, ignore_errors=True)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(sides.ROOT), os.environ.get("PYTHONPATH", "")]),
        "TFDS_DATA_DIR": str(scratch / "data"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        # Its list of fonts, which it makes once, would lie there, too.
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
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
    said, at = b"", {}
    while len(at) < len(MARKS):
        part = process.stdout.read(4096)
        if not part:
            raise SystemExit(f"it ended before its first step: {said.decode()}")
        said += part
        for mark, words in MARKS.items():
            if words in said:
                at.setdefault(mark, time.perf_counter() - began)
    # After the step the first images are drawn, and metrics written: let it end in good order.
    process.send_signal(signal.SIGTERM)
    process.communicate()
    parts = list(at)
    spent = {part: at[part] - (at[parts[i - 1]] if i else 0) for i, part in enumerate(parts)}
    return spent | {"all": at["step"]}


if __name__ == "__main__":
    main()
