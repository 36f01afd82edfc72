"""Decode mutated images and polyglots of every format, each under a time and memory bound.

python benchmarks/studies/fuzz_images.py [--mutations 5000] [--formats JPEG TIFF …] [--keep DIR]

A format is tested in child processes with limited memory. A violation is an exception other than
ImageDecodeError, a crash, a result that is not uint8 RGB, more CPU time or memory than the bound.
It is printed at once, and its file is kept in DIR.
"""

import argparse
import functools
import io
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from flax_resnet.decoding import ImageDecodeError, decode_rgb  # noqa: E402
from tests.flax_resnet.odd_images import exif, ramp, tiff  # noqa: E402
from tests.train.pictures import every_format  # noqa: E402

SECONDS, MEGABYTES = 3.0, 600  # for a file of some kilobytes
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
BATCH = 1000  # mutations per child process


def seeds(kind):
    """Return valid files of a format, in several variants."""
    rgb = np.ascontiguousarray(every_format()["png"][1][:40, :48])
    image = Image.fromarray(rgb)
    alpha = np.concatenate([rgb, rgb[..., :1]], axis=2)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = dict(save_all=True, append_images=[Image.fromarray(255 - rgb)])
    metadata = dict(exif=exif(6), icc_profile=profile)
    variants = {
        "JPEG": [
            *((image, metadata), (image, dict(progressive=True)), (image.convert("L"), {})),
            (image.convert("CMYK"), metadata),
        ],
        "PNG": [
            *((image, metadata), (image.quantize(16), {}), (Image.fromarray(alpha), frames)),
            (Image.fromarray(ramp(40, 48)[..., 0]), {}),
        ],
        "GIF": [(image.quantize(64), {}), (image.quantize(16), frames | {"transparency": 1})],
        "WEBP": [(image, metadata), (Image.fromarray(alpha), {"lossless": True}), (image, frames)],
        "BMP": [(image, {}), (image.quantize(16), {}), (image.convert("1"), {})],
        "TIFF": [
            *((image, dict(compression="tiff_lzw", icc_profile=profile)), (image.quantize(16), {})),
            *((image, frames), (image, dict(compression="jpeg"))),
            (image.convert("1"), dict(compression="group4")),
        ],
        "AVIF": [(image, metadata), (Image.fromarray(alpha), {})],
        "JPEG2000": [
            (image, {}),
            (Image.fromarray(alpha), {"no_jp2": True}),
            (image, {"tile_size": (16, 16)}),
        ],
        "PPM": [(image, {}), (image.convert("L"), {}), (image.convert("1"), {})],
    }
    files = []
    for variant, options in variants[kind]:
        buffer = io.BytesIO()
        variant.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    if kind == "TIFF":
        files += [tiff(ramp(), 1), tiff(alpha, 2, ">", (1,)), tiff(ramp(largest=4095), 1, bits=12)]
    return files


def mutate(encoded, others, rng):
    """Return a damaged copy of a file, or one that is combined with another format."""
    broken = bytearray(encoded)
    kind = rng.integers(8)
    if kind == 0:  # cut
        del broken[rng.integers(len(broken)) :]
    elif kind == 1:  # flip bits
        for offset in rng.integers(0, len(broken), rng.integers(1, 20)):
            broken[offset] ^= 1 << rng.integers(8)
    elif kind == 2:  # extreme numbers in the header
        for _ in range(rng.integers(1, 5)):
            offset, length = rng.integers(min(300, len(broken))), rng.choice([1, 2, 4])
            broken[offset : offset + length] = bytes([rng.choice([0, 0x7F, 0x80, 0xFF])]) * length
    elif kind == 3:  # erase a range
        start, length = rng.integers(len(broken)), rng.integers(1, 200)
        broken[start : start + length] = bytes(length)
    elif kind == 4:  # repeat a range
        start, length = rng.integers(len(broken)), rng.integers(1, 400)
        part = broken[start : start + length]
        broken[start:start] = part * int(rng.integers(1, 50))
    elif kind == 5:  # remove a range
        start = rng.integers(len(broken))
        del broken[start : start + rng.integers(1, 100)]
    elif kind == 6:  # the beginning of one format, the rest of another
        other = others[rng.integers(len(others))]
        broken = broken[: rng.integers(1, 64)] + other[rng.integers(64) :]
    else:  # another file behind or inside
        other, offset = others[rng.integers(len(others))], rng.integers(len(broken))
        broken[offset:offset] = other[: rng.integers(len(other))]
    return bytes(broken)


def repair_png(encoded):
    """Correct the checksums of all chunks, so that a decoder reads the damaged data."""
    fixed, offset = bytearray(encoded), 8
    while offset + 12 <= len(fixed):
        end = offset + 8 + struct.unpack_from(">I", fixed, offset)[0]
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[offset + 4 : end]))
        offset = end + 4
    return bytes(fixed)


@functools.cache
def seed_files(kind):
    """Return valid files of a format, and one of each other format."""
    others = [file for other in FORMATS for file in seeds(other)[:1]]
    others += [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"%PDF-1.4\n"]
    return seeds(kind), others


def mutation(kind, number):
    """Return a damaged file; the same for the same arguments."""
    files, others = seed_files(kind)
    rng = np.random.default_rng([number, FORMATS.index(kind)])
    broken = mutate(files[rng.integers(len(files))], others, rng)
    return repair_png(broken) if kind == "PNG" and number % 2 else broken


def memory(name):
    """Return a value of this process in MB: VmSize, VmRSS, or VmHWM, the highest VmRSS."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def run_child(kind, start, stop):
    """Decode mutations and print what happened; runs in a process of its own."""
    for file in seed_files(kind)[0]:
        decode_rgb(file, lambda *_: None)  # also loads all decoders
    limit = int(memory("VmSize") + MEGABYTES) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in range(start, stop):
        broken = mutation(kind, number)
        print(json.dumps({"number": number}), flush=True)  # the last line of a crash
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
        signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)  # CPU time, after which the process ends
        base, began, outcome = memory("VmRSS"), time.process_time(), "decoded"
        try:
            pixels = decode_rgb(broken, lambda *_: None)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                outcome = f"violation: result {pixels.dtype} {pixels.shape}"
        except ImageDecodeError as error:
            outcome = "violation: memory" if "emory" in str(error) else "refused"
        except BaseException as error:
            outcome = f"violation: {type(error).__name__}: {error}"
        seconds = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        if seconds > SECONDS:
            outcome = f"violation: {seconds:.1f} s"
        row = {"number": number, "outcome": outcome, "seconds": seconds}
        print(json.dumps(row | {"megabytes": memory("VmHWM") - base}), flush=True)


def fuzz(kind, mutations, folder):
    """Return counts of outcomes, the longest time and the most memory of one mutation."""
    counts, longest, most = Counter(), 0.0, 0.0

    def report(number, outcome):
        counts["violation"] += 1
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{kind}-{number}"
        file.write_bytes(mutation(kind, number))
        print(f"{kind} {number}: {outcome}; {file}", file=sys.stderr, flush=True)

    start = 0
    while start < mutations:
        stop, number = min(mutations, start + BATCH), None
        child = [sys.executable, __file__, "--child", kind, str(start), str(stop)]
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "OPENBLAS_NUM_THREADS": "1"}
        log = tempfile.TemporaryFile()  # libraries write a line for many of the files
        with subprocess.Popen(
            child, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        ) as process:
            for row in map(json.loads, process.stdout):
                number = row["number"]
                if "outcome" not in row:
                    continue
                longest, most = max(longest, row["seconds"]), max(most, row["megabytes"])
                if row["outcome"].startswith("violation"):
                    report(number, row["outcome"])
                else:
                    counts[row["outcome"]] += 1
        if process.returncode:
            if number is None:
                log.seek(0)
                raise RuntimeError(f"{kind}: the process failed: {log.read()[-500:].decode()}")
            report(number, f"violation: the process ended with {process.returncode}")
            stop = number + 1
        start = stop
    return counts, longest, most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5000, help="per format")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz_images")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.child:
        kind, start, stop = flags.child
        return run_child(kind, int(start), int(stop))
    print("| format | mutations | decoded | refused | violations | longest | memory |")
    print("|---|---|---|---|---|---|---|")
    failed = 0
    for kind in flags.formats:
        counts, longest, most = fuzz(kind, flags.mutations, flags.keep)
        numbers = (flags.mutations, counts["decoded"], counts["refused"], counts["violation"])
        cells = [kind, *(f"{number:,}" for number in numbers)]
        print(f"| {' | '.join(cells)} | {longest:.2f} s | {most:.0f} MB |", flush=True)
        failed += counts["violation"]
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
