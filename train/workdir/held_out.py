"""The list of the images that a run holds out for evaluation, in its workdir."""

import csv
import os

from flax_resnet.files import make_atomically
from train.data.source import DataSource
from train.runtime.files import writing

FILE = "held_out.csv"
PREDICTIONS = "held_out.npz"  # of the last evaluation of a fold, with all probabilities


def write_held_out(workdir: str, source: DataSource) -> None:
    """Write ``held_out.csv`` with image, label and group, if the evaluation images are held out.

    Images with masks have no label in it.

    Raises:
      RunError: the file cannot be written.
    """
    if not source.is_held_out:
        return
    columns = {"image": map(source.record_name, range(len(source)))}
    if labels := source.all_label_names():
        columns["label"] = labels
    if source.groups is not None:
        columns["group"] = source.groups

    def write(temporary: str) -> None:
        # Names of files may have bytes that are not UTF-8.
        with open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(columns)
            rows.writerows(zip(*columns.values(), strict=True))

    path = os.path.join(workdir, FILE)
    with writing(path):
        make_atomically(path, write)
