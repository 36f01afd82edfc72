"""What is evaluated has its own name, whatever the source, and a line says what it replaces."""

import csv
import json

import numpy as np
import pytest

from tests.train.data.labeled import IMAGES, LABELS, huggingface, opened, write_shard
from train import arrays_source, fitting
from train.data.datasets import describe_substitute, open_source
from train.data.images import encode_png
from train.workdir import run_files

PARTS = {"train": slice(0, 20), "val": slice(20, 30)}


def write_folder(root, parts=PARTS):
    for split, part in parts.items():
        for number in range(30)[part]:
            place = root / split / f"class{LABELS[number]}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(encode_png(IMAGES[number]))


def write_table(root, parts=PARTS):
    write_folder(root, {"": slice(0, 30)})
    with open(root / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "label", "split"))
        for split, part in parts.items():
            for n in range(30)[part]:
                rows.writerow((f"class{LABELS[n]}/{n}.png", f"class{LABELS[n]}", split))


def write_arrays(root):
    pairs = {split: (IMAGES[part], LABELS[part]) for split, part in PARTS.items()}
    columns = {f"x_{split}": images for split, (images, _) in pairs.items()}
    columns |= {f"y_{split}": labels for split, (_, labels) in pairs.items()}
    np.savez(root / "a.npz", **columns)


def write_shards(root):
    for split, part in PARTS.items():
        write_shard(root / f"{split}-0.tar", IMAGES[part], LABELS[part])


def write_huggingface(root):
    import datasets

    parts = {s: huggingface(IMAGES[p], LABELS[p], "abc") for s, p in PARTS.items()}
    datasets.DatasetDict(parts).save_to_disk(root)


WRITERS = {
    "folder": (write_folder, "", {}),
    "table": (write_table, "", {"labels": "labels.csv"}),
    "arrays": (write_arrays, "a.npz", {}),
    "webdataset": (write_shards, "", {}),
    "hf": (write_huggingface, "", {}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_split_that_replaces_a_missing_one_keeps_its_name(name, tmp_path):
    if name == "hf":
        pytest.importorskip("datasets")
    write, file, keys = WRITERS[name]
    write(tmp_path)
    keys = {key: str(tmp_path / value) for key, value in keys.items()}
    source = opened(name, tmp_path / file, "test", **keys)
    assert (source.split, len(source)) == ("val", 10)
    assert describe_substitute(source, "test") == (f"{name} has no split 'test': 'val' replaces it")
    own = opened(name, tmp_path / file, "val", **keys)
    assert (own.split, describe_substitute(own, "val")) == ("val", "")
    assert opened(name, tmp_path / file, "train", **keys).split == "train"
    if name in ("arrays", "webdataset", "hf"):  # whose splits may be divided
        part = opened(name, tmp_path / file, "test[40%:]", **keys)
        assert (part.split, len(part)) == ("val[40%:]", 6)


@pytest.mark.parametrize("name", ["folder", "table"])
def test_images_held_out_from_training_are_no_test_set(name, tmp_path):
    write, _, keys = WRITERS[name]
    write(tmp_path, {"train": slice(0, 30)})
    keys = {key: str(tmp_path / value) for key, value in keys.items()}
    held_out = opened(name, tmp_path, "test", **keys)
    assert held_out.is_held_out and held_out.split == "val"
    assert describe_substitute(held_out, "test") == (
        f"{name} has no split 'test': 'val', held out from training, replaces it"
    )
    requested = opened(name, tmp_path, "val", **keys)
    assert requested.names == held_out.names and describe_substitute(requested, "val") == ""


def test_an_evaluation_on_other_data_names_what_it_used(commands, digits_run, tmp_path):
    source = open_source(run_files.read_config(digits_run).dataset, "test[:50]")
    images, labels = zip(*map(source.decode, range(50)), strict=True)
    names = [str(k) for k in range(10)]
    np.savez(tmp_path / "a.npz", x_valid=np.stack(images), y_valid=labels, class_names=names)
    other = ("--dataset", "arrays", "--data_dir", tmp_path / "a.npz", "--output", tmp_path / "out")
    result = commands.call("train.evaluate", "--workdir", digits_run, *other)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "note: arrays has no split 'test': 'valid' replaces it\n" in result.stderr
    assert json.loads(lines[-1])["split"] == "valid"
    assert any(line.startswith("arrays valid: 50 images") for line in lines)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (
        written["split"] == "valid"
        and "arrays valid: 50" in (tmp_path / "out" / "report.html").read_text()
    )


def test_given_data_have_two_names(digits_config, tmp_path, monkeypatch):
    """Two sources with the default name of ``arrays_source``."""
    used = []
    monkeypatch.setattr(fitting, "train", lambda *given: used.extend(given[3]))
    fitting.fit(digits_config, tmp_path, *(arrays_source(IMAGES, LABELS) for _ in range(2)))
    assert [source.split for source in used] == ["train", "test"]
