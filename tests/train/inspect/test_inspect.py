"""The command: planted copies and wrong labels, skipped and unreadable files, and its refusals."""

import csv
import hashlib
import json
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.train.shapes import NAMES as SHAPES
from tests.train.shapes import draw_shapes
from train.data.images import encode_jpeg, encode_png, resize_area
from train.inspect import __main__ as inspect_command
from train.runtime.errors import UsageError

NUM_WRONG, NUM_COPIES = 90, 20


def folder_flags(root):
    return "--config", "resnet18_folder", f"--config.dataset.data_dir={root}"


def rows_of(output, *kinds):
    with open(output / "findings.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if not kinds or row["kind"] in kinds]


def digest(root):
    """Return a digest of all paths, times and contents below a folder."""
    paths = sorted(root.rglob("*"))
    files = [(str(p), p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else 0) for p in paths]
    return hashlib.sha256(repr(files).encode()).digest()


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The digits as a folder, with 5 % wrong labels and copies of training images in ``val``."""
    root = tmp_path_factory.mktemp("planted")
    pixels, labels = load_digits(return_X_y=True)
    pixels = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng(1)
    wrong = rng.choice(len(labels), NUM_WRONG, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, NUM_WRONG)) % 10

    def write(split, index, name):
        path = root / split / str(labels[index]) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(pixels[index]))
        return str(path.relative_to(root))

    files = [write("train" if i < 1437 else "val", i, f"{i:04}") for i in range(len(labels))]
    copied = rng.choice(np.setdiff1d(np.arange(1437), wrong), NUM_COPIES, replace=False)
    copies = {write("val", i, f"copy{i:04}"): files[i] for i in copied}
    return root, {files[i] for i in wrong}, copies


@pytest.fixture(scope="module")
def inspected(planted, commands, tmp_path_factory):
    """The output of the command without a run."""
    output = tmp_path_factory.mktemp("inspected") / "out"
    before = digest(planted[0])
    result = commands.call("train.inspect", *folder_flags(planted[0]), "--output", output)
    assert result.returncode == 0, result.stderr
    assert digest(planted[0]) == before
    return output, result


def test_all_copies_are_listed_with_their_originals(planted, inspected):
    copies = planted[2]
    listed = {row["file"]: row for row in rows_of(inspected[0], "leak")}
    assert {*listed} == {*copies, *copies.values()}
    for copy, original in copies.items():
        assert (listed[copy]["suggestion"], listed[copy]["other"]) == ("keep", original)
        assert (listed[original]["suggestion"], listed[original]["other"]) == ("remove", copy)


def f1(listed, wrong):
    return 2 * len({*listed} & wrong) / (len({*listed}) + len(wrong))


def test_wrong_labels_are_listed_at_least_as_well_as_by_cleanlab(planted, inspected):
    cleanlab = pytest.importorskip("cleanlab.filter")
    wrong, output = planted[1], inspected[0]
    listed = [row["file"] for row in rows_of(output, "label error")]
    assert len({*listed[: 2 * NUM_WRONG]} & wrong) >= 0.9 * NUM_WRONG
    arrays = np.load(output / "probabilities.npz")
    issues = cleanlab.find_label_issues(arrays["label"], arrays["probabilities"], n_jobs=1)
    assert f1(listed, wrong) >= f1(arrays["file"][issues].tolist(), wrong) > 0.5
    scores = [float(row["score"]) for row in rows_of(output, "label error")]
    assert scores == sorted(scores, reverse=True)


def test_the_page_and_the_last_line_agree_with_the_table(inspected):
    output, result = inspected
    summary = json.loads(result.stdout.splitlines()[-1])
    counts = Counter(row["kind"] for row in rows_of(output))
    assert summary["findings"] == counts and summary["images"] == 1797 + NUM_COPIES
    page = (output / "inspection.html").read_text()
    assert "Likely label errors" in page and "Copies across splits" in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_a_run_on_records_without_files(digits_run, commands, tmp_path):
    flags = "--workdir", digits_run, "--output", tmp_path / "out"
    result = commands.call("train.inspect", *flags)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["images"] == 1797
    assert "features of the run" in result.stderr


def test_a_run_on_a_fold_is_inspected_with_its_held_out_part(shapes_run, commands, tmp_path):
    flags = "--workdir", shapes_run, "--output", tmp_path / "out"
    result = commands.call("train.inspect", *flags)
    assert result.returncode == 0, result.stderr
    arrays = np.load(tmp_path / "out" / "probabilities.npz")
    assert len({*arrays["file"]}) == len(arrays["file"]) == 160
    assert ">held_out<" in (tmp_path / "out" / "inspection.html").read_text()


def test_given_predictions_are_joined_by_file(planted, inspected, commands, tmp_path):
    """Those of an oracle find exactly the wrong labels."""
    root, wrong, _ = planted
    arrays = dict(np.load(inspected[0] / "probabilities.npz"))
    true = arrays["label"].copy()
    is_wrong = np.isin(arrays["file"], list(wrong))
    true[is_wrong] = (true[is_wrong] + 1) % 10
    order = np.random.default_rng(0).permutation(len(true))
    oracle = np.where(np.eye(10)[true], 0.91, 0.01)
    path = tmp_path / "oracle.npz"
    np.savez(path, image=arrays["file"][order], probabilities=oracle[order])
    flags = (*folder_flags(root), "--output", tmp_path / "out", "--predictions", path)
    assert commands.call("train.inspect", *flags).returncode == 0
    assert {row["file"] for row in rows_of(tmp_path / "out", "label error")} == wrong
    result = commands.call("train.inspect", *flags, path)
    assert result.returncode == 2 and "has images that another of the files has" in result.stderr
    np.savez(path, image=arrays["file"], probabilities=oracle[:, :9])
    result = commands.call("train.inspect", *flags)
    assert result.returncode == 2 and "9 classes" in result.stderr
    path.write_bytes(b"no archive")
    assert commands.call("train.inspect", *flags).returncode == 1


def test_a_class_with_a_single_image_is_no_obstacle(commands, tmp_path):
    for name, count in (("a", 8), ("b", 8), ("rare", 1)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(count):
            image = picture(1000 * len(name) + 10 * ord(name[0]) + k)
            (tmp_path / "data" / name / f"{k}.png").write_bytes(encode_png(image))
    result = commands.call(
        "train.inspect", *folder_flags(tmp_path / "data"), "--output", tmp_path / "out"
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["images"] == 17
    assert "no part is held out: the class 'rare' has a single image" in result.stderr
    assert "Label errors of rare were not examined" in result.stderr
    assert not [row for row in rows_of(tmp_path / "out", "label error") if row["label"] == "rare"]


def picture(seed):
    """Return a picture with the structure of a photograph, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse, fine = (rng.integers(0, 256, (n, n, 3)).astype(np.float32) for n in (5, 16))
    parts = [cv2.resize(part, (160, 120), interpolation=cv2.INTER_CUBIC) for part in (coarse, fine)]
    return np.clip(0.7 * parts[0] + 0.3 * parts[1], 0, 255).astype(np.uint8)


@pytest.fixture
def photographs(tmp_path):
    """24 different pictures in two classes and splits."""
    root = tmp_path / "photographs"
    for seed in range(24):
        path = root / ("train", "val")[seed // 2 % 4 == 0] / "ab"[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(picture(seed)))
    return root


def test_near_copies_and_unusable_files(photographs, commands, tmp_path):
    bright = np.clip(picture(5).astype(int) + 25, 0, 255).astype(np.uint8)
    changed = {
        "val/a/jpeg.jpg": encode_jpeg(picture(2), 40),
        "val/b/small.png": encode_png(resize_area(picture(3), 80, 60)),
        "train/b/bright.png": encode_png(bright),
        "train/a/other-label.png": encode_png(picture(7)[3:-3, 3:-3]),
    }
    for name, content in changed.items():
        (photographs / name).write_bytes(content)
    (photographs / "train/a/blank.png").write_bytes(encode_png(np.full((50, 50, 3), 7, np.uint8)))
    (photographs / "train/a/broken.png").write_bytes(encode_png(picture(99))[:500])
    (photographs / "train/a/phone.heic").write_bytes(b"heic")
    flags = (*folder_flags(photographs), "--output", tmp_path / "out")
    result = commands.call("train.inspect", *flags)
    assert result.returncode == 0, result.stderr
    rows = rows_of(tmp_path / "out")
    pairs = {(row["kind"], row["file"], row["other"]) for row in rows}
    assert {
        ("near leak", "val/a/jpeg.jpg", "train/a/2.png"),
        ("near leak", "val/b/small.png", "train/b/3.png"),
        ("near copy", "train/b/bright.png", "train/b/5.png"),
        ("near label conflict", "train/a/other-label.png", "train/b/7.png"),
        ("skipped", "train/a/phone.heic", "other format"),
    } <= pairs
    counts = Counter(row["kind"] for row in rows if row["kind"] not in ("label error", "outlier"))
    assert counts == {
        **{"near leak": 4, "near copy": 2, "near label conflict": 2},
        **{"skipped": 1, "unreadable": 1, "blank": 1},
    }
    assert "note: Label errors are not" in result.stderr


def test_refusals(photographs, commands, digits_run):
    def error(*flags):
        result = commands.call("train.inspect", *flags)
        assert result.returncode == 2 and result.stderr.count("\n") == 1
        return result.stderr

    assert "give --config RECIPE, --workdir DIR" in error()
    inside = photographs / "inspection"
    assert "in the folder of the data" in error(*folder_flags(photographs), "--output", inside)
    assert not inside.exists()
    assert "names no split" in error(*folder_flags(photographs), "--splits", ",")
    assert "--step must be" in error("--workdir", digits_run, "--step", "newest")


@pytest.fixture(scope="module")
def inspected_sets(commands, tmp_path_factory):
    """The output for pictures of several shapes with planted copies and wrong labels."""
    root = tmp_path_factory.mktemp("sets")
    labels = draw_shapes(root, 300)
    wrong = np.random.default_rng(1).choice(250, 20, replace=False)
    labels[wrong, 1] ^= True
    names = [f"{n:03}.png" for n in range(300)]
    for n, other in ((297, 0), (298, 1), (299, 2)):
        shutil.copyfile(root / names[other], root / names[n])
        labels[n] = labels[other]
    labels[299, 0] ^= True
    with open(root / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "split", "labels"))
        for n, name in enumerate(names):
            chosen = [SHAPES[k] for k in np.flatnonzero(labels[n])]
            # The order in which the classes of an image are listed has no meaning.
            text = "|".join(chosen[::-1] if n == 298 else chosen)
            rows.writerow((name, "test" if n >= 250 and n != 298 else "train", text))
    output = root.parent / f"{root.name}_output"
    flags = ("--config.task=multi_label", "--config.dataset.name=table")
    done = commands.call(
        *("train.inspect", "--config", "configs/resnet20_digits.py", *flags),
        *(f"--config.dataset.labels={root}/labels.csv", "--output", output),
    )
    assert done.returncode == 0, done.stderr
    return output, done.stderr, labels, {names[n] for n in wrong}


def test_copies_with_other_sets_of_classes_are_conflicts(inspected_sets):
    output, stderr, *_ = inspected_sets
    leaks = {row["file"] for row in rows_of(output, "leak")}
    assert leaks == {"000.png", "002.png", "297.png", "299.png"}
    assert {row["file"] for row in rows_of(output, "label conflict")} == {"002.png", "299.png"}
    assert {row["file"] for row in rows_of(output, "copy")} == {"001.png", "298.png"}
    assert "2 images have copies with other classes" in stderr


def test_probabilities_and_counts_are_those_of_each_class(inspected_sets):
    output, _, labels, _ = inspected_sets
    arrays = np.load(output / "probabilities.npz")
    assert arrays["label"].shape == arrays["probabilities"].shape == (300, 4)
    order = [int(name[:3]) for name in arrays["file"]]
    np.testing.assert_array_equal(arrays["label"], labels[order])
    page = (output / "inspection.html").read_text()
    counts = labels[[n for n in range(300) if n < 250 or n == 298]].sum(axis=0)
    assert all(f"{count} ({100 * count / 251:.1f} %)" in page for count in counts)


def test_given_predictions_find_wrong_sets_of_classes(inspected_sets, commands, tmp_path):
    output, _, labels, wrong = inspected_sets
    true, changed = labels.copy(), [int(name[:3]) for name in wrong]
    true[changed, 1] ^= True
    path = tmp_path / "oracle.npz"
    names = [f"{n:03}.png" for n in range(300)]
    np.savez(path, image=names, probabilities=np.where(true, 0.93, 0.04))
    table = next(output.parent.glob("sets*/labels.csv"))
    done = commands.call(
        *("train.inspect", "--config", "configs/resnet20_digits.py", "--output", tmp_path / "out"),
        *("--config.task=multi_label", "--config.dataset.name=table", "--predictions", path),
        f"--config.dataset.labels={table}",
    )
    assert done.returncode == 0, done.stderr
    rows = {row["file"]: row for row in rows_of(tmp_path / "out", "label error")}
    assert rows.keys() == wrong
    for name, row in rows.items():
        expected = "|".join(SHAPES[k] for k in np.flatnonzero(true[int(name[:3])]))
        assert row["suggestion"] == (expected or "no class") and float(row["score"]) > 0.9


def test_masks_are_refused_with_the_command_that_checks_them(monkeypatch, tmp_path):
    flags = "--config", "fpn_resnet18_shapes", "--output", str(tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["train.inspect", *flags])
    with pytest.raises(UsageError, match=r"'drawn_shapes' have masks; train\.plan names"):
        inspect_command.main()
    assert not (tmp_path / "out").exists()
