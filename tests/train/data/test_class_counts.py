"""Counts of images by class, and the names of the folders that they are in."""

import numpy as np
import pytest

from train.data.class_counts import count_classes_of
from train.data.source import DataSource
from train.data.sources.image_folder import open_folder
from train.engine.predictions import output_names


def source(labels, classes, split="train"):
    records = [{"image": b"", "label": label} for label in labels]
    return DataSource("some", split, tuple(output_names((), classes)), records)


def test_counts_of_both_splits_are_one_finding():
    (finding,) = count_classes_of(source([0, 0, 0, 1], 2), source([1], 2, "test"))
    assert not finding.is_warning
    assert finding.text == (
        "images by class: 'train': output 0: 3 (75.0 %), output 1: 1 (25.0 %);"
        " 'test': output 0: 0 (0.0 %), output 1: 1 (100.0 %)"
    )


def test_of_many_classes_the_extremes_are_named():
    labels = np.repeat(np.arange(12), [5] * 10 + [2, 8])
    (finding,) = count_classes_of(source(labels, 12))
    assert "'train': output 10: 2 (3.3 %) to output 11: 8 (13.3 %) per class" in finding.text


@pytest.mark.parametrize("folder", ["test", "valid"])
def test_a_folder_that_stands_for_another_split_keeps_its_name(tmp_path, folder):
    for split in ("train", folder):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.png").touch()
    assert open_folder(str(tmp_path), "val", 0.2, 0).split == folder
    assert open_folder(str(tmp_path), "train", 0.2, 0).split == "train"
