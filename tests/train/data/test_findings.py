"""Copies, leaks and names that resemble each other, in folders and TFDS data sets."""

import hashlib
import itertools
import json
import os
import pickle
import re
import time
from collections import defaultdict

import numpy as np
import pytest

from tests.train.pictures import encode, photograph
from tests.unprivileged import unprivileged
from train.config.loading import default_config
from train.data.class_names import alike, check_classes
from train.data.datasets import open_source
from train.data.duplicates import FileCheck, check_files, check_images
from train.data.findings import inspect_data
from train.data.images import encode_png
from train.data.source import DataSource
from train.data.sources.arrays import arrays_source
from train.data.sources.image_folder import ImageFolder, open_folder
from train.runtime.errors import UsageError


def write(root, files):
    """Write ``{path: content}``."""
    for file, content in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def unique(*files, size=100):
    return {file: hashlib.shake_128(file.encode()).digest(size) for file in files}


def four(split):
    return [f"{split}/{name}/{i}.png" for name in "ab" for i in (1, 2)]


def inspected(root, *splits):
    sources = [open_folder(str(root), split, 0.5, 0) for split in splits or ("train", "val")]
    return {finding.kind: finding for finding in inspect_data(*sources)}


@pytest.mark.parametrize("size", [100, 100_000])  # compared at once, and after a sample
def test_copies_in_a_split_between_splits_and_classes_are_separate(size, tmp_path):
    files = unique(*four("train"), *four("val"), size=size)
    assert not (write(tmp_path, files) or inspected(tmp_path))
    one, other, third = (files[f"train/a/{i}.png"] for i in (1, 2, 1))
    write(tmp_path, {"train/a/copy.png": one, "train/a/copy2.png": one})
    assert {k: f.count for k, f in inspected(tmp_path).items()} == {"copies": 2}
    write(tmp_path, {"val/a/leak.png": other})
    assert {k: f.count for k, f in inspected(tmp_path).items()} == {"copies": 2, "leak": 1}
    write(tmp_path, {"val/b/wrong.png": third})
    findings = inspected(tmp_path)
    assert {k: f.count for k, f in findings.items()} == {
        "leak": 2,
        "copies": 2,
        "several classes": 4,
    }
    assert {kind for kind, f in findings.items() if f.is_warning} == {"leak", "several classes"}
    assert findings["leak"].text.startswith("2 of 6 evaluation images are also training images: ")
    assert "val/a/leak.png = train/a/2.png, val/b/wrong.png = train/a/1.png" in (
        findings["leak"].text
    )


def test_equal_size_samples_and_names_are_no_copies(tmp_path):
    files = unique(*four("train"), *four("val"), size=50_000)
    base = bytearray(50_000)
    base[:10] = b"same start"
    for number, file in enumerate(files):  # the samples in the center are equal
        files[file] = bytes([*base[:-1], number])
    write(tmp_path, files)
    assert not inspected(tmp_path)


def test_a_leak_into_the_held_out_part_is_found(tmp_path):
    files = unique(*(f"{name}/{i}.png" for name in "ab" for i in range(8)))
    copies = {file.replace("/", "/copy"): content for file, content in files.items()}
    write(tmp_path, files | copies)
    train, val = (open_folder(str(tmp_path), split, 0.5, 0) for split in ("train", "val"))
    contents = [{(tmp_path / name).read_bytes() for name in s.names} for s in (train, val)]
    expected = sum((tmp_path / name).read_bytes() in contents[0] for name in val.names)
    assert expected and inspected(tmp_path)["leak"].count == expected


def test_the_same_split_twice_is_a_leak_of_all_images(tmp_path):
    write(tmp_path, unique(*four("train"), *four("val")))
    leak = inspected(tmp_path, "train", "train")["leak"]
    assert leak.count == 4 and "train/a/1.png in both splits" in leak.text


@pytest.mark.parametrize(("rare", "warned"), [(7, False), (6, True)])
def test_unbalanced_classes_are_reported_in_one_line(rare, warned, tmp_path):
    train = [f"train/{name}/{i}.png" for name, n in (("a", 14), ("b", rare)) for i in range(n)]
    write(tmp_path, unique(*train, *four("val")))
    findings = inspected(tmp_path)
    assert set(findings) == ({"unbalanced"} if warned else set())
    if warned:
        assert "'b' has 6 training images, 'a' 14; " in findings["unbalanced"].text


def test_links_to_one_file_are_copies(tmp_path):
    write(tmp_path, unique(*four("train"), *four("val")))
    (tmp_path / "val/a/link.png").symlink_to(tmp_path / "train/a/1.png")
    os.link(tmp_path / "train/b/1.png", tmp_path / "val/b/hard.png")
    assert inspected(tmp_path)["leak"].count == 2


def test_empty_and_unreadable_files_are_reported_but_stay_records(tmp_path):
    write(tmp_path, unique(*four("train"), *four("val")))
    write(tmp_path, {"train/a/none.jpg": b"", "val/b/none.jpg": b"", "train/b/secret.jpg": b"x"})
    (tmp_path / "train/b/secret.jpg").chmod(0)
    with unprivileged(tmp_path):
        findings = inspected(".")
        assert len(open_folder(".", "train", 0.5, 0)) == 6
    assert {kind: f.count for kind, f in findings.items()} == {"empty": 2, "no permission": 1}
    assert "train/a/none.jpg, val/b/none.jpg; they count as corrupt" in findings["empty"].text


def test_random_copies_match_a_comparison_of_all_digests_in_bounded_time(tmp_path):
    """3,000 files of equal and different sizes, a fifth of them copies."""
    rng = np.random.default_rng(0)
    contents = [rng.bytes(int(rng.choice([100, 200, 20_000]))) for _ in range(2400)]
    contents += [contents[i] for i in rng.integers(0, 300, 600)]
    names = [f"{'abc'[i % 3]}/{i}.jpg" for i in range(len(contents))]
    write(tmp_path, dict(zip(names, contents, strict=True)))
    expected = defaultdict(list)
    for index, content in enumerate(contents):
        expected[hashlib.sha256(content).digest()].append(index)
    start = time.monotonic()
    check = check_files(str(tmp_path), names, 60)
    assert time.monotonic() - start < 10  # 0.3 s without other load
    assert check.copies == sorted(group for group in expected.values() if len(group) > 1)
    assert check.checked == 3000


def test_many_copies_of_one_image_are_compared_in_linear_time(tmp_path, monkeypatch):
    """A server's picture "not available" can be that of ten thousand files."""
    files, labels = tuple(f"{i}.png" for i in range(20_000)), (0,) * 19_999 + (1,)
    check = FileCheck(len(files), empty=[], unreadable=[], copies=[list(range(len(files)))])
    monkeypatch.setattr("train.data.findings.check_files", lambda *_: check)
    source = DataSource("folder", "all", ("a", "b"), ImageFolder(str(tmp_path), files, labels))
    start = time.process_time()
    findings = {finding.kind: finding.text for finding in inspect_data(source, source)}
    assert time.process_time() - start < 2
    assert (
        "20,000 images are in several classes: 0.png = 19999.png, " in findings["several classes"]
    )


def test_the_time_limit_holds_within_a_task_of_a_thread(tmp_path):
    """A task has 200 files, which may be large."""
    files = [f"{i}.png" for i in range(150)]
    write(tmp_path, dict.fromkeys(files, b"same"))
    seconds = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.data.duplicates.time.monotonic", lambda: next(seconds))
        check = check_files(str(tmp_path), files, max_seconds=100)
    assert 0 < check.checked < 100


def test_without_time_the_rest_is_reported_as_unchecked(tmp_path, monkeypatch):
    write(tmp_path, unique(*four("train"), *four("val")))
    check = check_files(str(tmp_path), four("train"), -1)
    assert check.checked == 0 and not check.copies
    monkeypatch.setattr("train.data.findings.check_files", lambda *_: check)
    assert "8 of 8 images were not compared" in inspected(tmp_path)["unchecked"].text


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["Cat", "cat", "dog"], [["'Cat'", "'cat'"]]),
        (["stra\u00dfe", "STRASSE"], [["'STRASSE'", "'straße'"]]),
        (["caf\u00e9", "cafe\u0301"], [[r"'cafe\u0301'", r"'caf\xe9'"]]),
        (["\ufb01n", "fin"], [["'fin'", "'ﬁn'"]]),
        (["a b", "a  b", " a b", "a\u00a0b"], [["' a b'", "'a  b'", "'a b'", r"'a\xa0b'"]]),
        (["a\u200bb", "ab"], [["'ab'", r"'a\u200bb'"]]),
        (["1", "01", "1.0", "10", "1.5"], [["'01'", "'1'", "'1.0'"]]),
        (["0", "000", "00x", "0x"], [["'0'", "'000'"]]),
        (["cafe", "caf\u00e9", "a_b", "a-b", "ab"], []),
    ],
)
def test_class_names_that_look_alike(names, expected, tmp_path):
    assert alike(names) == expected
    write(tmp_path, unique(*(f"{name}/{i}.png" for name in [*names, "zebra"] for i in (1, 2))))
    findings = inspected(tmp_path)
    assert findings.keys() == ({"alike"} if expected else set())
    assert all(finding.is_warning for finding in findings.values())
    assert all("1 group of class names differs" in finding.text for finding in findings.values())


def test_classes_that_only_one_split_has_are_an_error_with_the_way_out(tmp_path):
    def check(train, val):
        root = tmp_path / f"{train}{val}"
        files = [f"{s}/{n}/{i}.png" for s, m in (("train", train), ("val", val)) for n in m
                 for i in (1, 2)]  # fmt: skip
        write(root, unique(*files))
        check_classes(*(open_folder(str(root), split, 0.5, 0) for split in ("train", "val")))

    check("ab", "ab")
    for train, val in (("abc", "ab"), ("ab", "abc")):
        split = "val" if "c" in train else "train"
        with pytest.raises(UsageError, match=rf"'{split}' lacks 'c'; add images to the missing"):
            check(train, val)
    with pytest.raises(UsageError, match="'C' and 'c' differ only in letter case"):
        check("abc", "abC")


def test_a_class_with_the_name_of_a_split_is_a_warning(tmp_path):
    write(tmp_path, unique(*(f"{name}/{i}.png" for name in ("Test", "cat") for i in (1, 2))))
    assert inspected(tmp_path)["split as class"].examples == ("Test",)


@pytest.mark.parametrize(
    ("train", "evaluation", "expected"),
    [
        ("train", "test", 0),
        ("train", "train", 1437),
        ("train[:60%]", "train[60%:]", 0),
        ("train[:1000]", "train[900:]", 100),
        ("train+test", "test", 360),
    ],
)
def test_overlapping_splits_of_a_tfds_data_set(train, evaluation, expected, data_dir):
    dataset = default_config().dataset
    dataset.data_dir = data_dir
    findings = inspect_data(open_source(dataset, train), open_source(dataset, evaluation))
    assert [(f.kind, f.count) for f in findings] == ([("leak", expected)] if expected else [])


def test_sources_stay_picklable_for_worker_processes(tmp_path):
    write(tmp_path, unique(*four("train"), *four("val"), "train/a/x.txt"))
    source = open_folder(str(tmp_path), "train", 0.5, 0)
    assert pickle.loads(pickle.dumps(source)).skipped == source.skipped


def test_summary_plan_and_report_show_the_same_findings(tmp_path, commands):
    image = [encode(photograph(seed, 12, 16), "PNG") for seed in range(17)]
    root = tmp_path / "data"
    names = [f"{s}/{n}/{i}.png" for s in ("train", "val") for n in "ab" for i in range(4)]
    write(root, dict(zip(names, image, strict=False)) | {"val/a/leak.png": image[0]})
    write(root, {"train/b/x.heic": b"x", "train/a/<b>.txt": b"x", "val/@eaDir/a.jpg": b"x"})
    arguments = (
        *("--config", "configs/resnet18_folder.py", "--workdir", tmp_path / "run"),
        *(f"--config.dataset.data_dir={root}", "--config.dataset.image_size=32"),
        *("--config.model.name=resnet20", "--config.model.stage_sizes=1"),
        *("--config.num_steps=1", "--config.batch_size=8"),
    )
    planned = commands.call("train.plan", *arguments)
    trained = commands.run("train.main", *arguments)
    assert (planned.returncode, trained.returncode) == (0, 0), planned.stderr + trained.stderr
    findings = json.loads(planned.stdout.splitlines()[-1])["findings"]
    assert [finding["kind"] for finding in findings] == [
        *("class counts", "other format", "extension", "system", "leak")
    ]
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["findings"] == findings
    page = (tmp_path / "run/report.html").read_text()
    printed = ["".join(done.stderr.split()) for done in (planned, trained)]
    for finding in findings[1:]:  # the counts are lines of the summary
        line = f"{'warning' if finding['is_warning'] else 'note'}: {finding['text']}"
        assert all("".join(line.split()) in text for text in printed)
    assert "classes:   a: 4 (50.0 %), b: 4 (50.0 %)" in planned.stdout
    assert page.count("leak.png = train/a/0.png") == 1
    assert "&lt;b&gt;.txt" in page and not re.search("<b>.txt", page)


@pytest.mark.parametrize("encoded", [False, True])
def test_copies_in_arrays_and_encoded_records_are_found(encoded):
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4), np.uint8)
    images[7], images[250], images[260] = images[3], images[4], images[204]  # 200… are evaluated
    labels = np.arange(300) % 2
    records = list(map(encode_png, images)) if encoded else images
    train = arrays_source(records[:200], labels[:200], split="train")
    evaluation = arrays_source(records[200:], labels[200:], split="test")
    found = {finding.kind: finding for finding in inspect_data(train, evaluation)}
    assert {k: f.count for k, f in found.items()} == {"leak": 1, "copies": 2}
    assert found["leak"].text.startswith("1 of 100 evaluation images are also training images: ")
    assert "test: record 50 = train: record 4" in found["leak"].text
    labels[3] = 0
    train = arrays_source(records[:200], labels[:200], split="train")
    found = {finding.kind: finding for finding in inspect_data(train, evaluation)}
    assert found["several classes"].examples == (
        "train: record 3 = train: record 7",
        "train: record 7 = train: record 3",
    )


def test_records_are_compared_for_a_limited_time():
    def slow(index):
        time.sleep(0.002)
        return b"" if index < 2500 else b"%d" % (index // 2)

    check = check_images(slow, 5000, max_seconds=0.2)
    assert 100 < check.checked < 3000 and all(index < 2500 for index in check.empty)
    assert all(one % 2 == 0 and other == one + 1 for one, other in check.copies)
