"""Mutated weight files of every format, read in a child process under limits of time and memory.

python benchmarks/studies/fuzz_weights.py [--number 500] [--seed 0] [--only NAME] [--keep FOLDER]

Every mutant must be read or refused with WeightsError within 4 times its size plus 100 MB of
memory and 2 s of CPU time per 100 MB. Mutants that break this rule are copied to FOLDER.
"""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BATCH = 50  # files read by one child
SECONDS = 120  # for one batch
EXTREMES = (0, 1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def write_originals(folder: Path) -> list[Path]:
    """Write a small intact file of every format."""
    import flax.serialization
    import h5py
    import numpy as np

    from tests.flax_resnet.weights import crafted_files

    arrays = {
        f"layer1.{i}.conv1.weight": np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3) + i
        for i in range(4)
    }
    np.savez(folder / "npz.npz", **arrays)
    np.savez_compressed(folder / "npz compressed.npz", **arrays)
    crafted_files.write_state_dict(folder / "torch.pth", arrays)
    crafted_files.write_state_dict(folder / "torch before 1.6.pth", arrays, old=True)
    from safetensors.numpy import save_file

    save_file(arrays, folder / "safetensors.safetensors", {"format": "pt"})
    stages = {
        f"stage1_block{i + 1}": {"conv1": {"kernel": a}} for i, a in enumerate(arrays.values())
    }
    norms = {"stage1_block1": {"norm1": {"mean": np.zeros(2), "var": np.ones(2, np.float16)}}}
    tree = {"params": stages, "batch_stats": norms, "step": 3, "best": np.float32(0.5)}
    (folder / "flax.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    for version in ("earliest", "latest"):
        with h5py.File(folder / f"hdf5 {version}.h5", "w", libver=version) as file:
            for i, array in enumerate(arrays.values()):
                file[f"conv2_block{i + 1}_1_conv/conv2_block{i + 1}_1_conv/kernel:0"] = array
                group = file.create_group(f"layers/conv2d_{i}/vars")
                group.attrs["name"] = f"conv2_block{i + 1}_2_conv"
                group["0"], group["1"] = array, array[0, 0, 0]
    with zipfile.ZipFile(folder / "keras.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(folder / "hdf5 latest.h5", "model.weights.h5")
    return sorted(folder.iterdir())


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` after one to four random changes, most of them where the structure is."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed)) if changed else 0
        length = rng.choice((1, 2, 4, 8, 40))
        match rng.randrange(7):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                changed[place : place + 1] = bytes([changed[place] ^ 1 << rng.randrange(8)])
            case 2:
                size = rng.choice((1, 2, 4, 8))
                value = rng.choice(EXTREMES) % 2 ** (8 * size)
                changed[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))
            case 3:
                del changed[place : place + length]
            case 4:
                changed[place:place] = rng.randbytes(length)
            case 5:
                source = rng.randrange(len(changed))
                changed[place : place + length] = changed[source : source + length]
            case 6 if rng.random() < 0.3:
                del changed[place:]
        if not changed:
            break
    return bytes(changed)


def run(files: list[Path]) -> tuple[list[dict], str]:
    """Return the child's rows, and why it ended early."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.flax_resnet.weights.measured"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    try:
        process = subprocess.run(
            [*command, *map(str, files)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        text, problem = process.stdout, ""
        if process.returncode < 0:
            problem = f"signal {-process.returncode}"
        elif process.returncode:
            problem = f"traceback: {process.stderr.strip().splitlines()[-1]}"
    except subprocess.TimeoutExpired as error:
        text, problem = (error.stdout or b"").decode(), "time-out"
    return [json.loads(line) for line in text.splitlines()], problem


def outcome(row: dict) -> str:
    """Return what became of a file, or the limit that it broke."""
    if row["bytes"] > 4 * row["size"] + 100e6:
        return f"MEMORY {row['bytes'] / 1e6:.0f} MB"
    if row["seconds"] > 2 * (1 + row["size"] // 1e8):
        return f"TIME {row['seconds']:.1f} s"
    if row["error"] is not None and not row["error"].isprintable():
        return "LINES"
    return "read" if row["error"] is None else "refused"


def main() -> int:
    """Run the study, print a line per format, and return 1 if a file broke a limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=int, default=500, help="mutants per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="NAME", default="", help="a part of the files' names")
    parser.add_argument("--keep", type=Path, help="folder for mutants that broke a limit")
    flags = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "originals")
        folder.mkdir()
        for original in filter(lambda path: flags.only in path.name, write_originals(folder)):
            rng = random.Random(f"{flags.seed} {original.name}")
            data, counts = original.read_bytes(), collections.Counter()
            files = []
            for number in range(flags.number):
                path = Path(temporary, f"{number} {original.name}")
                path.write_bytes(mutate(data, rng))
                files.append(path)
            while files:
                batch = files[:BATCH]
                rows, problem = run(batch)
                results = [outcome(row) for row in rows] + ([problem] if problem else [])
                for path, result in zip(batch, results, strict=False):
                    if result not in ("read", "refused"):
                        failed = True
                        print(f"  {path.name}: {result}")
                        if flags.keep:
                            shutil.copy(path, flags.keep)
                        result = result.split()[0]
                    counts[result] += 1
                files = files[len(results) :]
            text = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
            print(f"{original.name} ({len(data):,} bytes): {text}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
