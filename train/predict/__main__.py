"""Predict images: python -m train.predict --workdir DIR IMAGE_FOLDER_OR_TABLE… […]."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from train.predict.classes import predict_classes
from train.predict.engines import ENGINES
from train.predict.masks import MASKS_FOLDER, predict_masks
from train.reporting.prediction_lines import CSV_HEADER, JOINED
from train.runtime.cli import (
    Parser,
    add_checkpoint_flags,
    add_view_flags,
    parse_step,
    run_command,
)
from train.runtime.errors import UsageError
from train.runtime.files import check_writable
from train.workdir.trained_run import read_kind


class Command(NamedTuple):
    """What the command does with runs of a kind.

    Attributes:
      run: ``(flags, step) -> exit status``.
      flags: names of the flags that only it has; without a value they are None or empty.
    """

    run: Callable[[argparse.Namespace, int | str], int]
    flags: Sequence[str]


# By the kind of the run, see flax_resnet.weights.run_info.RunInfo.
COMMANDS = {
    None: Command(
        predict_classes,
        (
            *("topk", "data_dir", "image_key", "delimiter"),
            *("coverage", "features", "similar", "explain", "engine"),
        ),
    ),
    "segmentation": Command(predict_masks, ("masks", "overlays", "shrink", "tta", "scales")),
}


def parse_flags() -> argparse.Namespace:
    """Return the flags; raise UsageError if they are invalid or exclude each other."""
    parser = Parser(
        "train.predict",
        description="Predict the classes of images, or of their pixels, with a trained run.",
        epilog="Files that cannot be read are reported and skipped; the exit status is then 1.",
    )
    add_checkpoint_flags(parser)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE_FOLDER_OR_TABLE",
        help="files and folders, with subfolders, or a .csv, .tsv or .parquet table of images",
    )
    topk = "classes per image; default: 5, with a table and --csv 1"
    parser.add_argument("--topk", type=int, metavar="N", help=topk)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per line")
    form.add_argument(
        "--csv",
        action="store_true",
        help=f"print {','.join(CSV_HEADER)}; with a table its columns and {','.join(JOINED)}",
    )
    folder = "folder to which the paths in a table are relative; default: its own"
    parser.add_argument("--data_dir", default="", metavar="DIR", help=folder)
    image_key = "column of the images in a table; default: detected"
    parser.add_argument("--image_key", default="", metavar="COLUMN", help=image_key)
    delimiter = "character between the columns of a CSV table, or tab; default: detected"
    parser.add_argument("--delimiter", default="", metavar="CHARACTER", help=delimiter)
    coverage = "also print a set of classes for each image, which holds the true one with this"
    coverage += " probability, such as 0.9; the checkpoint must be calibrated"
    parser.add_argument("--coverage", type=float, metavar="SHARE", help=coverage)
    features = "write the features before the head of each image, with its name: .npz or .parquet"
    parser.add_argument("--features", metavar="FILE", help=features)
    similar = "print the K most similar images of each image instead of classes: by the cosine of"
    similar += " their features, among the given images or those of --among"
    parser.add_argument("--similar", type=int, metavar="K", help=similar)
    among = "file of --features of this network, of train.predict or train.evaluate"
    parser.add_argument("--among", metavar="FILE", help=among)
    engine = "what computes the network; onnxruntime, of the extra onnx, is often faster on a CPU;"
    parser.add_argument("--engine", choices=ENGINES, help=f"{engine} default: jax")
    explain = "write Grad-CAM maps there: the regions that support the most probable class"
    parser.add_argument("--explain", metavar="DIR", help=explain)
    masks = "of a run of task='segmentation': folder for the masks, PNG files of class numbers;"
    parser.add_argument("--masks", metavar="DIR", help=f"{masks} default: {MASKS_FOLDER}")
    overlays = "also write the pictures there, in the colors of their classes"
    parser.add_argument("--overlays", metavar="DIR", help=overlays)
    shrink = "shrink pictures that are larger than dataset.image_size to it, as in evaluation;"
    shrink += " default: compute them in overlapping tiles of that size"
    parser.add_argument("--shrink", action="store_true", default=None, help=shrink)
    add_view_flags(parser)
    arguments = sys.argv[1:]
    if "--" in arguments:  # which parse_intermixed_args does not handle: what follows are files
        end = arguments.index("--")
        arguments[end:] = [os.path.join(".", file) for file in arguments[end + 1 :]]
    flags = parser.parse_intermixed_args(arguments)  # flags may stand between the files
    if flags.topk is not None and flags.topk < 1:
        raise UsageError(f"--topk must be at least 1, not {flags.topk}")
    if flags.coverage is not None and not 0 < flags.coverage < 1:
        raise UsageError(f"--coverage must be between 0 and 1, not {flags.coverage:g}")
    check_similar(flags)
    return flags


def main() -> int:
    """Run the command and return its exit status."""
    flags = parse_flags()
    kind = read_kind(flags.workdir)
    # Of an unknown kind, loading the run reports the error.
    command = COMMANDS.get(kind, COMMANDS[None])
    others = [name for other in COMMANDS.values() if other != command for name in other.flags]
    for name in others:
        if getattr(flags, name) not in (None, ""):
            outputs = "images" if kind is None else "pixels"
            raise UsageError(f"--{name} has no meaning for this run: its outputs are of {outputs}")
    return command.run(flags, parse_step(flags.step))


def check_similar(flags: argparse.Namespace) -> None:
    """Raise UsageError if the flags of features are invalid or exclude others."""
    if flags.similar is not None and flags.similar < 1:
        raise UsageError(f"--similar must be at least 1, not {flags.similar}")
    if flags.among is not None and flags.similar is None:
        raise UsageError("--among needs --similar K")
    others = {"topk": flags.topk, "coverage": flags.coverage, "explain": flags.explain}
    given = [f"--{name}" for name, value in others.items() if value is not None]
    if flags.similar is not None and given:
        raise UsageError(
            f"--similar prints similar images instead of classes, so {given[0]} has no effect"
        )
    for name in ("features", "among"):
        if (path := getattr(flags, name)) is not None:
            from train.engine.feature_files import check_features_path

            check_features_path(path, f"--{name}")
    if flags.features is not None:
        check_writable(os.path.dirname(flags.features), flags.features)


if __name__ == "__main__":
    run_command(main)
