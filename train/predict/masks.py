"""Masks of pictures: written, with the areas of their classes printed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from train.predict.inputs import find_files
from train.predict.printing import exit_status, print_predictions
from train.reporting.output_names import png_files
from train.reporting.segmentation import mask_lines
from train.runtime.cli import parse_scales
from train.runtime.errors import UsageError
from train.runtime.formatting import join_names, pluralize
from train.workdir.trained_run import load_trained_run

if TYPE_CHECKING:
    import argparse

MASKS_FOLDER = "predicted_masks"


def predict_masks(flags: argparse.Namespace, step: int | str) -> int:
    """Write the masks of pictures, and print the areas of their classes; return the exit status."""
    from train.data.sources.image_table import find_table

    if find_table(flags.images) is not None:
        raise UsageError("masks are predicted for files and folders, not for a table of images")
    scales = parse_scales(flags.scales)
    for name in ("masks", "overlays"):
        if getattr(flags, name) == "":
            raise UsageError(f"--{name} is empty; omit it, or name a folder")
    masks = MASKS_FOLDER if flags.masks is None else flags.masks
    outputs = {"--masks": masks, "--overlays": flags.overlays}
    files = find_files(flags.images, outputs)
    check_folders(files, outputs)
    check_replaced(files, outputs)
    run = load_trained_run(
        flags.workdir, step, flags.weights, 1, flags.trust_recipe, kind="segmentation"
    )
    from flax_resnet.dense.views import make_views
    from train.reporting.segmentation import mask_prediction

    form = "json" if flags.json else "csv" if flags.csv else "text"
    to_lines = mask_lines.LINES[form]
    predictions = mask_prediction.predict_masks(
        run, files, masks, flags.overlays, bool(flags.shrink), make_views(scales, bool(flags.tta))
    )
    header = mask_lines.CSV_HEADER if flags.csv else None
    failed = print_predictions(predictions, len(files), to_lines, header, writes_files=True)
    return exit_status(failed, len(files))


def check_folders(files: Sequence[str], outputs: Mapping[str, str | None]) -> None:
    """Raise UsageError if written files could replace the pictures or one another."""
    folders = {name: os.path.realpath(path) for name, path in outputs.items() if path is not None}
    if len({*folders.values()}) < len(folders):
        raise UsageError(f"{' and '.join(folders)} must be different folders")
    sources = {os.path.dirname(os.path.realpath(file)) for file in files}
    for name, folder in folders.items():
        if folder in sources:
            raise UsageError(
                f"{name} must not be a folder of the pictures, {outputs[name]!r}: files of the same"
                " name would be replaced"
            )


def check_replaced(files: Sequence[str], outputs: Mapping[str, str | None]) -> None:
    """Raise UsageError if a file would be replaced that is no earlier prediction, such as a mask.

    The masks of a data set have the names of its pictures, and took days to draw.
    """
    from flax_resnet.images.mask_files import is_signed_png

    for name, folder in outputs.items():
        written = [] if folder is None else png_files(files, folder)
        others = [path for path in written if os.path.isfile(path) and not is_signed_png(path)]
        if others:
            raise UsageError(
                f"{name}={folder!r} has {pluralize(len(others), 'file')} that this command did not"
                f" write and would replace ({join_names(others, 2)}); choose another folder"
            )
