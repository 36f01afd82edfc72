"""Image folders: layouts, file names and error messages."""

import os
import re

import numpy as np
import pytest

from tests.train.pictures import encode, every_format, photograph
from train.config.loading import default_config
from train.data.class_names import check_classes
from train.data.datasets import open_source
from train.data.loader import DataLoader
from train.data.sources.image_folder import open_folder
from train.runtime.errors import RunError, UsageError
from train.tasks.task import Task
from train.workdir import run_files

IMAGE = encode(photograph(0, 12, 16), "PNG")


def make(root, *files):
    """Write a small image to each path."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)


def opened(root, split="train", **dataset):
    config = default_config().dataset
    config.update({"name": "folder", "data_dir": str(root)} | dataset)
    return open_source(config, split)


def listed(source):
    return {
        (os.path.normpath(source.names[i]), source.class_names[source[i][1]])
        for i in range(len(source))
    }


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_folders_with_train_and_evaluation_splits(name, tmp_path):
    make(tmp_path, "train/dog/1.jpg", "train/cat/2.jpg", "train/cat/3.jpg", f"{name}/cat/4.jpg")
    make(tmp_path, f"{name}/dog/5.jpg")
    train, evaluation = opened(tmp_path), opened(tmp_path, "test")
    assert train.class_names == evaluation.class_names == ("cat", "dog")
    assert listed(train) == {
        ("train/dog/1.jpg", "dog"),
        ("train/cat/2.jpg", "cat"),
        ("train/cat/3.jpg", "cat"),
    }
    assert listed(evaluation) == {
        (f"{name}/cat/4.jpg", "cat"),
        (f"{name}/dog/5.jpg", "dog"),
    }
    check_classes(train, evaluation)


def test_the_named_split_is_preferred(tmp_path):
    for split in ("train", "val", "test"):
        make(tmp_path, f"{split}/a/1.png", f"{split}/b/1.png")
    assert opened(tmp_path, "test").names[0].startswith("test")
    assert opened(tmp_path, "val").names[0].startswith("val")


def test_nested_folders_extensions_in_any_case_and_links(tmp_path):
    make(
        tmp_path,
        "train/a/deep/er/1.JPG",
        "train/a/2.Png",
        "train/a/.hidden.jpg",
        "elsewhere/9.webp",
    )
    make(tmp_path, "train/.cache/x.jpg", "train/a/._3.jpg")
    (tmp_path / "train/a/notes.txt").write_text("no image")
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "train/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train/a/loop").symlink_to(tmp_path / "train/a")
    (tmp_path / "train/a/all").symlink_to(tmp_path)
    (tmp_path / "train/a/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    make(tmp_path, "val/a/1.png", "val/b/1.png")
    assert listed(opened(tmp_path)) == {
        ("train/a/deep/er/1.JPG", "a"),
        ("train/a/2.Png", "a"),
        ("train/b/9.webp", "b"),
    }


@pytest.mark.parametrize("below", ["", "train/"])
def test_without_evaluation_split_a_part_of_each_class_is_held_out(below, tmp_path):
    files = [
        f"{below}{name}/{i}.png" for name, count in (("a", 40), ("b", 10)) for i in range(count)
    ]
    make(tmp_path, *files)
    train, held = opened(tmp_path), opened(tmp_path, "test")
    assert listed(train) | listed(held) == {(f, f.removeprefix(below)[0]) for f in files}
    assert not listed(train) & listed(held)
    labels = [held[i][1] for i in range(len(held))]
    assert np.bincount(labels).tolist() == [8, 2]
    assert listed(opened(tmp_path, "val")) == listed(held)  # the same selection
    assert listed(opened(tmp_path, "test", val_seed=1)) != listed(held)
    assert len(opened(tmp_path, "test", val_fraction=0.5)) == 25
    # When images are added, most stay on their side.
    make(tmp_path, f"{below}a/new1.png", f"{below}a/new2.png")
    assert len(listed(held) - listed(opened(tmp_path, "test"))) <= 2


@pytest.mark.parametrize(
    ("files", "split", "error", "message"),
    [
        (
            [],
            "train",
            UsageError,
            "no folder with images; put the images into ROOT/train/CLASS",
        ),
        (["1.jpg", "2.jpg"], "train", UsageError, "no folder with images"),
        (["train/a/1.jpg", "val/a/2.jpg"], "train", UsageError, "has one class, 'a'"),
        (["val/a/1.jpg", "val/b/2.jpg"], "train", UsageError, "has no split 'train'.* it has val"),
        (["a/1.jpg", "b/1.jpg", "b/2.jpg"], "train", UsageError, "'a' has a single image"),
        (
            ["train/a/1.jpg", "val/a/1.jpg"],
            "val[:3]",
            UsageError,
            "TFDS's split syntax.*'val'",
        ),
        (["train/a/1.jpg", "train/b/1.jpg"], "dev", UsageError, "has no split 'dev'.*it has train"),
    ],
)
def test_invalid_folders_are_reported_in_one_line(files, split, error, message, tmp_path):
    make(tmp_path, *files)
    with pytest.raises(error, match=message) as caught:
        opened(tmp_path, split)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(RunError, match=re.escape(f"'{tmp_path / 'nowhere'}' does not exist")):
        opened(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"--config\.dataset\.data_dir=FOLDER"):
        opened("")
    with pytest.raises(UsageError, match="on a local disk"):
        opened("gs://bucket/images")


def test_different_classes_of_the_splits_are_named(tmp_path):
    make(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/cow/1.png")
    with pytest.raises(UsageError, match="'train' lacks 'cow'; 'val' lacks 'dog'"):
        check_classes(opened(tmp_path), opened(tmp_path, "test"))


def test_training_reads_every_image_format(tmp_path, commands):
    """Six steps and an evaluation on a folder with a file of every format, and a corrupt one."""
    root = tmp_path / "images"
    for split in ("train", "val"):
        for label in ("first", "second"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for name, (encoded, *_) in every_format().items():
                (folder / f"a.{name}").write_bytes(encoded)
    (root / "train/first/png_named.JPEG").write_bytes(IMAGE)
    (root / "train/first/broken.jpg").write_bytes(b"\xff\xd8 no image")
    (root / "val/second/broken.jpg").write_bytes(IMAGE[:50])
    workdir = tmp_path / "run"
    arguments = (
        *("--config", "configs/resnet18_folder.py", "--workdir", workdir),
        f"--config.dataset.data_dir={root}",
        *("--config.model.name=resnet20", "--config.model.stage_sizes=1"),
        "--config.dataset.image_size=32",
        *("--config.num_steps=6", "--config.batch_size=20"),
    )
    trained = commands.run("train.main", *arguments, "--config.loader.max_corrupt_fraction=0.1")
    assert trained.returncode == 0, trained.stderr
    assert "44 images of 'train'" in trained.stdout and "43 images of 'val'" in trained.stdout
    assert '"examples": 42' in trained.stdout and '"bad": 1' in trained.stdout
    lines = (workdir / "corrupt_records.txt").read_text().splitlines()
    names = {tuple(line.split("\t")[0:3:2]) for line in lines}
    assert names == {
        ("train", os.path.join("train", "first", "broken.jpg")),
        ("val", os.path.join("val", "second", "broken.jpg")),
    }
    evaluated = commands.run("train.evaluate", "--workdir", workdir)
    assert evaluated.stdout.splitlines()[-1] == trained.stdout.splitlines()[-1]


def test_a_run_is_not_resumed_on_other_images(tmp_path):
    """The folder may be moved, but the classes and the number of images must stay."""
    for split in ("train", "val"):
        make(tmp_path, *(f"{split}/{image}.png" for image in ("a/1", "a/2", "b/1", "b/2")))
    config = default_config()
    config.dataset.update(name="folder", data_dir=str(tmp_path), image_size=8)
    splits = DataLoader(config, "train", training=True), DataLoader(config, "test", training=False)
    run_files.describe(str(tmp_path), config, *splits, Task(None, None, {}).describe())
    run_files.check_data(str(tmp_path), *splits)
    make(tmp_path, "train/b/3.png")
    with pytest.raises(RunError, match="had 4 images in folder train, which has 5 now"):
        run_files.check_data(str(tmp_path), DataLoader(config, "train", training=True))
    make(tmp_path, "val/c/1.png")
    with pytest.raises(RunError, match="the classes a, b, but folder val has a, b, c"):
        run_files.check_data(str(tmp_path), DataLoader(config, "test", training=False))


def test_a_class_name_that_is_not_utf8_is_an_error(tmp_path):
    for name in (b"cats", b"d\xf6gs"):
        place = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(place)
        for number in (b"1.png", b"2.png"):
            with open(os.path.join(place, number), "wb"):
                pass
    with pytest.raises(UsageError, match=r"d\\udcf6gs.*rename the folder"):
        open_folder(str(tmp_path), "train", 0.5, 0)
