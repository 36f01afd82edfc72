"""Folders of images with masks: layouts, splits, pairs, and errors that name files."""

from functools import partial

import numpy as np
import pytest

from flax_resnet.decoding import decode_mask
from tests.train.data.masked import mask, opened, png, write
from tests.train.pictures import encode, photograph, rotated
from train.config.loading import default_config
from train.data import mask_checks
from train.data.datasets import open_source
from train.data.findings import inspect_data
from train.data.loader import DataLoader
from train.runtime.errors import RunError, UsageError

NAMES = [f"n{number:02d}" for number in range(20)]


def place(root, layout):
    """Write ten training and five evaluation images in a layout; return their content."""
    train, val = NAMES[:10], NAMES[10:15]
    if layout == "nested":
        return write(root, train, "train") | write(root, val, "val", first=10)
    written = write(root, train) | write(root, val, first=10)
    for split, names in (("train", train), ("val", val)):
        if layout == "listed":
            (root / f"{split}.txt").write_text("\n".join(names) + "\n")
        for kind in ("images", "masks") if layout == "inside" else ():
            (root / kind / split).mkdir()
            for name in names:
                (root / kind / f"{name}.png").rename(root / kind / split / f"{name}.png")
    return written


@pytest.mark.parametrize("layout", ["nested", "inside", "listed"])
def test_layouts_have_the_same_records(tmp_path, layout):
    written = place(tmp_path, layout)
    for split, expected in (("train", NAMES[:10]), ("test", NAMES[10:15])):
        source = opened(tmp_path, split)
        assert source.split == ("val" if split == "test" else split)
        assert source.class_names == ("sky", "tree", "car")
        assert len(source) == len(expected)
        for index, name in enumerate(expected):
            assert name in source.record_name(index)
            for one, other in zip(source.decode(index), written[name], strict=True):
                np.testing.assert_array_equal(one, other)
    assert not inspect_data(opened(tmp_path), opened(tmp_path, "val"))


def test_a_part_of_a_folder_without_splits_is_held_out(tmp_path):
    write(tmp_path, NAMES)
    parts = [opened(tmp_path, split, val_fraction=0.25) for split in ("train", "val")]
    assert [len(part) for part in parts] == [15, 5] and parts[1].is_held_out
    files = [file for part in parts for file in part.records.files]
    assert sorted(files) == [f"images/{name}.png" for name in NAMES]
    whole = opened(tmp_path, "all")
    assert len(whole) == 20 and {part.fingerprint for part in (*parts, whole)} == {
        part.fingerprint for part in (*parts, whole)
    }
    grouped = opened(tmp_path, "val", val_fraction=0.25, group_pattern=r"n(\d)")
    assert {*grouped.groups} in ({"0"}, {"1"}) and len(grouped) == 10


def test_folds_hold_every_image_out_once(tmp_path):
    write(tmp_path, NAMES)
    parts = [opened(tmp_path, "held_out", fold=f"{k}/3") for k in (1, 2, 3)]
    assert sorted(map(len, parts)) == [6, 7, 7]
    assert sorted(f for part in parts for f in part.records.files) == [
        f"images/{name}.png" for name in NAMES
    ]
    for index, name in enumerate(parts[0].records.files):
        assert parts[0].records.masks[index] == name.replace("images", "masks")
    assert len({part.fingerprint for part in parts}) == 3


def test_images_have_all_formats_and_orientations(tmp_path):
    write(tmp_path, NAMES[:1])
    picture = photograph(3, 40, 30)
    for name, kind in (("a", "JPEG"), ("b", "WEBP"), ("c", "TIFF")):
        path = tmp_path / "images/deep" / f"{name}.{kind.lower()}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(picture, kind, exif=rotated(6)))
        (tmp_path / "masks/deep").mkdir(exist_ok=True)
        upright = png(mask(0, 30, 40))
        (tmp_path / f"masks/deep/{name}.PNG").write_bytes(upright)
    source = opened(tmp_path, "all")
    assert len(source) == 4
    for index in range(4):
        image, classes = source.decode(index)
        assert image.shape[:2] == classes.shape


def test_sizes_are_those_of_the_masks_and_need_no_image(tmp_path):
    written = write(tmp_path, NAMES[:2])
    source = opened(tmp_path, "all")
    (tmp_path / f"images/{NAMES[1]}.png").unlink()
    assert [source.size(index) for index in range(2)] == [
        written[name][1].shape for name in NAMES[:2]
    ]


def test_masks_are_read_once_to_count_the_classes_of_all_splits(tmp_path, monkeypatch):
    place(tmp_path, "nested")
    (tmp_path / "classes.txt").unlink()
    counted = []

    def decode(encoded):
        counted.append(encoded)
        return decode_mask(encoded)

    monkeypatch.setattr(mask_checks, "decode_mask", decode)
    sources = [opened(tmp_path, split) for split in ("train", "val", "train")]
    assert {source.class_names for source in sources} == {("class 0", "class 1", "class 2")}
    assert len(counted) == 15
    (tmp_path / f"val/masks/{NAMES[10]}.png").write_bytes(png(mask(10, 23, 24, classes=4)))
    assert len(opened(tmp_path).class_names) == 4 and len(counted) == 30


def test_values_of_classes_and_ignored_ones_can_be_chosen(tmp_path):
    write(tmp_path, NAMES[:8], names_of_classes=())
    original = opened(tmp_path, "all")
    masks = [original.decode(index)[1] for index in range(8)]
    assert original.class_names == ("class 0", "class 1", "class 2")
    values = np.array([255, 7, 0], np.uint8)
    for index, name in enumerate(NAMES[:8]):
        (tmp_path / f"masks/{name}.png").write_bytes(png(values[masks[index]]))
    source = opened(tmp_path, "all", mask_values=(255, 0), ignore_values=(7,))
    assert source.class_names == ("class 0", "class 1")
    for index in range(8):
        expected = np.array([0, 255, 1])[masks[index]]
        np.testing.assert_array_equal(source.decode(index)[1], expected)
    with pytest.raises(UsageError, match=r"values in the masks are 0, 7 besides 255, which is ig"):
        opened(tmp_path, "all")
    with pytest.raises(UsageError, match=r"mask_values=\(0, 0\) must be a different value for"):
        opened(tmp_path, "all", mask_values=(0, 0))
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UsageError, match=r"a different value for each of the 3 classes"):
        opened(tmp_path, "all", mask_values=(0, 255))


def test_black_and_white_masks_are_an_error_that_names_the_key(tmp_path):
    write(tmp_path, NAMES, names_of_classes=("background", "crack"))
    for index, name in enumerate(NAMES):
        values = (mask(index, 20 + index % 7, 24 + index % 5) > 1) * np.uint8(255)
        (tmp_path / f"masks/{name}.png").write_bytes(png(values))
    with pytest.raises(
        RunError, match=r"values 0 and 255 only .*set config.dataset.mask_values=0,"
    ):
        opened(tmp_path, "all")
    classes = opened(tmp_path, "all", mask_values=(0, 255)).decode(0)[1]
    assert {*np.unique(classes).tolist()} == {0, 1}


def loader_of_all(root, fraction=0.001, cache="always", split="all"):
    config = default_config()
    config.dataset.update(name="segmentation_folder", data_dir=str(root), image_size=32)
    config.loader.update(max_corrupt_fraction=fraction, cache_on_device=cache)
    return DataLoader(config, split, training=True)


def test_missing_masks_and_images_are_named_and_limited(tmp_path):
    write(tmp_path, NAMES)
    for name in NAMES[3:10]:
        (tmp_path / f"masks/{name}.png").unlink()
    (tmp_path / "images/n15.png").unlink()
    with pytest.raises(RunError) as raised:
        loader_of_all(tmp_path)
    assert "7 images without a mask (images/n03.png, " in str(raised.value)
    assert "n07.png and 2 more) and 1 mask without an image (masks/n15.png)" in str(raised.value)
    assert "permits (1)" in str(raised.value)
    loader = loader_of_all(tmp_path, fraction=0.5)
    assert len(loader) == 12
    texts = [finding.text for finding in inspect_data(loader.source, loader.source)]
    assert any("skipped 7 images without a mask: images/n03.png" in text for text in texts)
    assert any("skipped 1 mask without an image: masks/n15.png" in text for text in texts)


def test_unlisted_images_are_a_note_and_listed_ones_must_exist(tmp_path):
    place(tmp_path, "listed")
    loader_of = partial(loader_of_all, split="train")
    (tmp_path / "train.txt").write_text("n01\nn02.png\nnone\n\n")
    loader = loader_of(tmp_path)
    assert loader.source.records.files == ("images/n01.png", "images/n02.png")
    findings = inspect_data(loader.source, loader.source)
    note = next(finding for finding in findings if finding.kind == "unlisted")
    assert note.count == 8 and not note.is_warning
    assert any("none of train.txt" in finding.text for finding in findings)
    with pytest.raises(
        RunError, match=r"has 1 listed name without image and mask \(none of train.txt\)"
    ):
        loader_of(tmp_path, fraction=0.0)
    (tmp_path / "train.txt").write_text("n01\nn01\n")
    with pytest.raises(RunError, match="1 repeated names"):
        loader_of(tmp_path)


@pytest.mark.parametrize("cache", ["always", "never"])
def test_wrong_masks_count_as_corrupt_and_are_named(tmp_path, cache):
    written = write(tmp_path, NAMES)
    broken = {
        "n04": (png(mask(0, 9, 11)), "the mask has 11×9 pixels, the image 28×24"),
        "n08": (png(np.full((21, 27), 9, np.uint8)), "a value that is no class: 9 (classes: 0…2"),
        "n12": (png(photograph(0, 25, 26)), "more than 256 colors"),
    }
    for name, (content, _) in broken.items():
        (tmp_path / f"masks/{name}.png").write_bytes(content)
    for fraction in (0.0, 0.1):
        with pytest.raises(RunError, match=r"cannot be decoded, more than .* \([02]\): images"):
            list(loader_of_all(tmp_path, fraction, cache).load().eval_batches(20))
    loader = loader_of_all(tmp_path, 0.15, cache).load()
    (batch,) = (loader.examples(loader.cached, batch) for batch in loader.eval_batches(20))
    assert np.flatnonzero(batch["bad"]).tolist() == [4, 8, 12]
    _, classes = written["n05"]  # replaces n04
    np.testing.assert_array_equal(batch["label"][4, : len(classes), : len(classes[0])], classes)
    for index, (_, reason) in zip((4, 8, 12), broken.values(), strict=True):
        with pytest.raises(Exception, match=reason.split("(")[0]):
            loader.source.decode(index)


def test_a_folder_that_is_wrong_as_a_whole_is_an_error_at_once(tmp_path):
    write(tmp_path, NAMES)
    for name in NAMES[:15]:
        (tmp_path / f"masks/{name}.png").write_bytes(png(mask(0, 5, 5)))
    with pytest.raises(RunError, match=r"of 16 images .* cannot be used: images/n00.png: the"):
        opened(tmp_path, "all")


def test_other_folders_are_errors_that_show_the_layout(tmp_path):
    with pytest.raises(
        UsageError, match=r"has no folder 'images'; put images and masks into ROOT/train/im"
    ):
        opened(tmp_path, "all")
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match=r"has no folder 'masks'"):
        opened(tmp_path, "all")
    (tmp_path / "masks").mkdir()
    (tmp_path / "images/a.png").write_bytes(png(photograph(0, 8, 8)))
    (tmp_path / "masks/a_mask.png").write_bytes(png(mask(0, 8, 8)))
    with pytest.raises(
        UsageError, match=r"no image with a mask; 'images' has images/a.png; 'masks'"
    ):
        opened(tmp_path, "all")
    (tmp_path / "images/a.jpg").write_bytes(b"")
    with pytest.raises(RunError, match=r"1 pair of files .* images/a.jpg and images/a.png"):
        opened(tmp_path, "all")
    with pytest.raises(UsageError, match=r"mask_values=.* has no meaning for 'folder'"):
        dataset = default_config().dataset
        for name in ("a", "b"):
            (tmp_path / "classes" / name).mkdir(parents=True)
            (tmp_path / "classes" / name / "0.png").write_bytes(png(photograph(0, 8, 8)))
        dataset.update(name="folder", data_dir=str(tmp_path / "classes"), mask_values=(0, 1))
        open_source(dataset, "all")
    dataset.update(mask_values=(), ignore_values=(0,))
    with pytest.raises(UsageError, match=r"ignore_values=\(0,\) has no meaning for 'folder'"):
        open_source(dataset, "all")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "classes.txt is empty"),
        ("sky\n\ntree\n", "line 2 of classes.txt is empty"),
        ("sky\ntree\n sky \n", "lines 1 and 3 of classes.txt have the same name, 'sky'"),
        ("crack\n", "one class, 'crack', so that there is nothing to learn"),
    ],
)
def test_wrong_names_of_classes_are_named_with_their_line(tmp_path, lines, message):
    write(tmp_path, NAMES, names_of_classes=())
    (tmp_path / "classes.txt").write_text(lines)
    with pytest.raises(UsageError, match=message):
        opened(tmp_path, "all")


def test_an_ignored_value_is_no_class_at_the_same_time(tmp_path):
    write(tmp_path, NAMES)
    with pytest.raises(UsageError, match=r"ignore_values=\(0,\) has 0, the value of class 0; to"):
        opened(tmp_path, "all", ignore_values=(0,))
    (tmp_path / "classes.txt").write_text("tree\ncar\n")
    source = opened(tmp_path, "all", ignore_values=(0,), mask_values=(1, 2))
    assert {*np.unique(source.decode(0)[1]).tolist()} == {0, 1, 255}


def test_names_of_classes_may_come_from_any_editor(tmp_path):
    write(tmp_path, NAMES)
    (tmp_path / "classes.txt").write_bytes("himmel\r\n bäume \r\n道路\r\n".encode("utf-8-sig"))
    assert opened(tmp_path, "all").class_names == ("himmel", "bäume", "道路")
    (tmp_path / "classes.txt").write_bytes("himmel\nbäume\nauto\n".encode("latin-1"))
    with pytest.raises(RunError, match=r"classes\.txt are not UTF-8 .*; save it as UTF-8"):
        opened(tmp_path, "all")


def fill_masks(root, names, value):
    for name in names:
        path = root / "masks" / f"{name}.png"
        path.write_bytes(png(np.full_like(decode_mask(path.read_bytes()), value)))


def test_masks_without_any_class_are_an_error_before_training(tmp_path):
    names = [f"n{number:02d}" for number in range(40)]
    write(tmp_path, names)
    fill_masks(tmp_path, [*names[:5], *names[6:]], 255)
    assert len(opened(tmp_path, "all")) == 40  # one mask that is not in the sample has classes
    fill_masks(tmp_path, names[5:6], 255)
    with pytest.raises(RunError, match=r"no pixel of the masks .* all 40 have ignored values only"):
        opened(tmp_path, "all")


def test_masks_of_a_single_class_are_a_warning(tmp_path):
    write(tmp_path, NAMES)
    fill_masks(tmp_path, NAMES, 1)
    [finding] = loader_of_all(tmp_path).findings()
    assert finding.is_warning and "all 16 masks" in finding.text and "'tree' only" in finding.text


def test_folders_of_other_names_are_named(tmp_path):
    (tmp_path / "Training").mkdir()
    with pytest.raises(UsageError, match=r"has no folder 'images', only 'Training'; put images"):
        opened(tmp_path, "all")
