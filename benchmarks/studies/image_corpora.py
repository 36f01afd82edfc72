"""Decode the test images of other projects, and compare the pixels with Pillow's.

python benchmarks/studies/image_corpora.py [--folder DIR] [--corpora NAME …] [--list]

The images come from source packages of Debian (apt-get, with the configured archives) and source
distributions of PyPI (pip). They are kept in DIR, and read without being unpacked.
"""

import argparse
import glob
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parents[2]))

from flax_resnet.decoding import ImageDecodeError, decode_rgb
from flax_resnet.images.formats import EXTENSIONS, UNSUPPORTED_EXTENSIONS

DEBIAN = (
    *("pillow", "tiff", "libpng1.6", "libwebp", "giflib", "libavif", "libjpeg-turbo", "gdk-pixbuf"),
    *("leptonlib", "graphicsmagick", "netpbm-free", "imlib2", "libsdl2-image", "qtimageformats"),
)
PYPI = ("pillow", "imageio", "tifffile")
MAX_BYTES = 20 * 2**20
SAME, CLOSE = 2, 8  # largest difference of values; CLOSE allows for another JPEG decoder
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM")


def fetch_debian(name, folder):
    """Download a source package with the archives that apt is configured for."""
    target = folder / f"debian-{name}"
    sources = folder / "deb-src"
    if not sources.exists():
        for part in ("lists/partial", "cache/archives/partial"):
            (sources / part).mkdir(parents=True)
        found = glob.glob("/etc/apt/sources.list.d/debian*.sources")
        text = "\n".join(Path(file).read_text() for file in found)
        (sources / "src.sources").write_text(re.sub(r"(?m)^Types:.*$", "Types: deb-src", text))
        apt(sources, folder, "update")
    if not target.exists():
        target.mkdir()
        apt(sources, target, "source", "--download-only", name)
    return target


def apt(sources, folder, *command):
    options = {
        "Dir::Etc::sourcelist": sources / "src.sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": sources / "lists",
        "Dir::Cache": sources / "cache",
        "APT::Sandbox::User": "root",
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", "-qq", *flags, *command], cwd=folder, check=False)


def fetch_pypi(name, folder):
    """Download a source distribution."""
    target = folder / f"pypi-{name}"
    if not target.exists():
        target.mkdir()
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            ":all:",
        ]
        subprocess.run([*command, "-d", target, name], check=False)
    return target


def images(folder):
    """Yield name and content of the images in the archives of a folder."""
    endings = (*EXTENSIONS, *UNSUPPORTED_EXTENSIONS)
    for path in sorted(folder.iterdir()):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.lower().endswith(endings) and member.file_size < MAX_BYTES:
                        yield member.filename, archive.read(member)
        elif ".tar" in path.name and path.suffix != ".asc":
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.name.lower().endswith(endings) and member.size < MAX_BYTES:
                        if member.isfile() and member.size:
                            yield member.name, archive.extractfile(member).read()


def decode_with_pillow(encoded):
    """Return Pillow's RGB, with the upper 8 of 16 bits, or None if Pillow refuses the file."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except Exception:
        return None


def compare(encoded):
    """Return the outcome for one file, with the reason or the difference."""
    remarks = []
    try:
        pixels = decode_rgb(encoded, lambda kind, _: remarks.append(kind))
    except ImageDecodeError as error:
        reason = str(error).partition("image: ")[2]
        pillow = decode_with_pillow(encoded)
        return ("refused", reason) if pillow is None else ("refused, Pillow decodes", reason)
    reference = decode_with_pillow(encoded)
    if reference is None:
        return "decoded, Pillow refuses", ", ".join(remarks)
    if reference.shape != pixels.shape:
        return "differing", f"shape {pixels.shape}, Pillow's {reference.shape}"
    difference = abs(pixels.astype(int) - reference).max()
    if difference <= SAME:
        return "same", ""
    return "close" if difference <= CLOSE else "differing", f"by {difference}; {remarks}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "corpora")
    parser.add_argument("--corpora", nargs="+", help="such as debian-tiff pypi-pillow")
    parser.add_argument("--list", action="store_true", help="name each file that is not the same")
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    flags.folder.mkdir(parents=True, exist_ok=True)
    columns = ("same", "close", "differing", "decoded, Pillow refuses")
    columns += ("refused", "refused, Pillow decodes")
    print(f"| corpus | tried | {' | '.join(columns)} |\n|{'---|' * (2 + len(columns))}")
    total = Counter()
    names = [f"debian-{name}" for name in DEBIAN] + [f"pypi-{name}" for name in PYPI]
    for corpus in flags.corpora or names:
        origin, _, name = corpus.partition("-")
        fetch = {"debian": fetch_debian, "pypi": fetch_pypi}[origin]
        counts = Counter()
        for file, encoded in images(fetch(name, flags.folder)):
            outcome, detail = compare(encoded)
            counts[outcome] += 1
            if flags.list and outcome != "same":
                print(f"{outcome}: {file}: {detail}", file=sys.stderr)
        total += counts
        cells = [corpus, counts.total(), *(counts[column] for column in columns)]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"| total | {' | '.join(map(str, [total.total(), *(total[c] for c in columns)]))} |")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
