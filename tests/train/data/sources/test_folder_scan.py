"""What a walk over a folder of images skips, and what is said of it."""

import inspect
import os
import socket
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.train.pictures import encode, photograph
from tests.unprivileged import unprivileged
from train.data.findings import merge_skipped
from train.data.skipped import describe_skipped
from train.data.sources.folder_scan import FolderScan
from train.data.sources.image_folder import list_images, open_folder
from train.runtime.errors import RunError, UsageError

IMAGE = encode(photograph(0, 12, 16), "PNG")
HEIC = b"\0\0\0\x18ftypheic" + bytes(200)


def make(root, *files, content=IMAGE):
    """Write a file to each path."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pairs(root, *splits):
    """Write two images in two classes of each split; without splits into the root."""
    for split in splits or ("",):
        make(root, *(f"{split}/{name}/{i}.png".lstrip("/") for name in "ab" for i in (1, 2)))


def skipped(root, *splits):
    """Return ``{reason: {path, …}}`` of some splits of a folder."""
    sources = [open_folder(str(root), split, 0.5, 0) for split in splits or ("train", "val")]
    return {reason: set(paths) for reason, paths in merge_skipped(*sources).items()}


def found(root, *splits):
    sources = [open_folder(str(root), split, 0.5, 0) for split in splits or ("train", "val")]
    return {f.kind: f for f in describe_skipped(str(root), merge_skipped(*sources))}


SYSTEM = (
    *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "__MACOSX"),
    *("lost+found", "System Volume Information", "$RECYCLE.BIN", "$Recycle.Bin", "__pycache__"),
)
HIDDEN = (
    *(".git", ".ipynb_checkpoints", ".Trash-1000", ".Trashes", ".Spotlight-V100", ".@__thumb"),
    *(".thumbnails", ".AppleDouble", ".snapshot"),
)


@pytest.mark.parametrize("below", ["", "a/", "a/deep/"])
@pytest.mark.parametrize(("names", "reason"), [(SYSTEM, "system"), (HIDDEN, "hidden")])
def test_system_and_hidden_folders_are_no_classes_at_any_depth(names, reason, below, tmp_path):
    pairs(tmp_path)
    make(tmp_path, *(f"{below}{name}/{i}.jpg" for name in names for i in range(3)))
    source = open_folder(str(tmp_path), "all", 0.2, 0)
    assert source.class_names == ("a", "b") and len(source) == 4
    assert skipped(tmp_path, "all") == {reason: {below + name for name in names}}


def test_a_class_of_recycled_things_is_a_class(tmp_path):
    """Windows wrote RECYCLED and RECYCLER in capitals."""
    pairs(tmp_path)
    make(tmp_path, "recycled/1.jpg", "recycled/2.jpg", "RECYCLER/1.jpg")
    assert open_folder(str(tmp_path), "all", 0.2, 0).class_names == ("a", "b", "recycled")


def test_system_and_hidden_files_are_counted_by_name(tmp_path):
    pairs(tmp_path)
    make(tmp_path, "a/Thumbs.db", "b/Thumbs.db", "b/desktop.ini", "a/Icon\r", content=b"x")
    make(tmp_path, "a/._1.png", "b/.DS_Store", ".gitkeep")
    findings = found(tmp_path)
    assert skipped(tmp_path) == {
        "system": {"a/Thumbs.db", "b/Thumbs.db", "b/desktop.ini", "a/Icon\r"},
        "hidden": {"a/._1.png", "b/.DS_Store", ".gitkeep"},
    }
    assert findings["system"].count == 4 and "(2 Thumbs.db, " in findings["system"].text
    assert "\r" not in findings["system"].text
    assert findings["hidden"].count == 3
    assert not any(finding.is_warning for finding in findings.values())


def test_names_that_only_resemble_system_folders_are_classes(tmp_path):
    names = ("@home", "#1", "$5 bill", "recycle", "MACOSX", "lost", "eaDir", "snapshot")
    make(tmp_path, *(f"{name}/{i}.png" for name in names for i in (1, 2)))
    assert set(open_folder(str(tmp_path), "all", 0.2, 0).class_names) == set(names)


def test_files_without_an_image_extension_are_sorted_by_extension_and_content(tmp_path):
    pairs(tmp_path)
    make(tmp_path, "a/x.HEIC", "a/y.heic", "b/z.CR2", content=b"whatever")
    make(tmp_path, "b/photo", content=HEIC)
    make(tmp_path, "a/IMG_0001", "a/copy.png.bak", "b/one.png~", "b/two.jpg.txt")
    make(tmp_path, "a/readme.txt", "labels.csv", "a/photo.jpg.txt", "b/Makefile", content=b"text")
    make(tmp_path, "b/photo.txt.jpg", "a/two.dots.PNG")  # images
    findings = found(tmp_path)
    counts = {kind: finding.count for kind, finding in findings.items()}
    assert counts == {"other format": 4, "misnamed": 4, "extension": 4}
    assert "2 .heic" in findings["other format"].text and "1 .cr2" in findings["other format"].text
    assert "2 .txt" in findings["extension"].text
    assert [findings[kind].is_warning for kind in counts] == [True, True, False]
    assert len(open_folder(str(tmp_path), "all", 0.2, 0)) == 6


def test_classes_without_images_are_named_with_their_content(tmp_path):
    pairs(tmp_path)
    (tmp_path / "empty").mkdir()
    make(tmp_path, *(f"cat/deep/{i}.HEIC" for i in range(8)), content=HEIC)
    make(tmp_path, "cat/notes.txt", content=b"text")
    make(tmp_path, "hidden only/.1.jpg")
    finding = found(tmp_path)["empty class"]
    assert finding.count == 3 and finding.is_warning
    assert "cat (8 .heic, 1 .txt), empty, hidden only;" in finding.text


def test_images_outside_of_classes_and_folders_beside_the_splits_are_reported(tmp_path):
    pairs(tmp_path, "train", "val")
    make(tmp_path, "train/loose.jpg", "cover.jpg", "docs/page.html", "car/1.jpg", "test/a/1.png")
    assert skipped(tmp_path) == {
        "outside": {"train/loose.jpg", "cover.jpg"},
        "beside": {"docs"},
        "images beside": {"car"},
    }
    pairs(tmp_path, "dev")
    assert "dev" in skipped(tmp_path, "train", "val")["beside"]
    assert "dev" not in skipped(tmp_path, "train", "dev")["beside"]


def test_links_are_followed_once_and_reported_otherwise(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    pairs(root)
    make(other, "9.png")
    links = {
        "a/loop": root / "a",
        "a/up": root,
        "b/far up": tmp_path,
        "everything": root,
        "b/first": other,
        "b/second": other,
        "b/gone.jpg": tmp_path / "nowhere",
        "b/circle": root / "b/circle",
        "gone": tmp_path / "nowhere",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    assert skipped(root) == {
        "repeated link": {"a/loop", "a/up", "b/far up", "everything", "b/second"},
        "broken link": {"b/gone.jpg", "b/circle", "gone"},
    }
    source = open_folder(str(root), "all", 0.2, 0)
    assert source.names == ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/first/9.png")
    assert found(root)["broken link"].is_warning


def test_a_folder_is_preferred_to_links_to_it(tmp_path):
    pairs(tmp_path)
    make(tmp_path, "a/z real/1.png")
    (tmp_path / "a/a link").symlink_to(tmp_path / "a/z real")
    source = open_folder(str(tmp_path), "all", 0.2, 0)
    assert "a/z real/1.png" in source.names and len(source) == 5


def test_pipes_sockets_and_devices_are_never_opened(tmp_path, monkeypatch):
    pairs(tmp_path)
    os.mkfifo(tmp_path / "a/pipe.jpg")  # opening one would block
    os.mkfifo(tmp_path / "b/pipe")
    (tmp_path / "b/linked.png").symlink_to(tmp_path / "a/pipe.jpg")
    (tmp_path / "b/device.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path / "b")  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert skipped(tmp_path) == {
            "special": {"a/pipe.jpg", "b/pipe", "b/linked.png", "b/device.png", "b/socket.jpg"}
        }
        assert found(tmp_path)["special"].count == 5


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    pairs(tmp_path)
    make(tmp_path, "a/closed/1.png", "b/closed/1.png")
    make(tmp_path, "lost+found/1.png")  # belongs to root and is not read
    closed = [tmp_path / "a/closed", tmp_path / "b/closed", tmp_path / "lost+found"]
    for folder in closed:
        folder.chmod(0)
    try:
        with unprivileged(tmp_path), pytest.raises(RunError) as caught:
            open_folder(".", "all", 0.2, 0)
    finally:
        for folder in closed:
            folder.chmod(0o755)
    text = str(caught.value)
    assert "cannot list './a/closed', './b/closed': Permission denied" in text
    assert "lost+found" not in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.jpg", "2.jpg"], "no folder with images; skipped 2 images outside of the class"),
        (["train/1.jpg", "car/1.jpg"], "/train' has no folder with images; .*images beside"),
        (["set/cat/1.jpg", "set/dog/1.jpg"], "one class, 'set'; .*set data_dir to '.*/set'"),
        (["Training/a/1.jpg", "Testing/a/1.jpg"], "Testing, Training .*look like splits"),
        (["Train/a/1.jpg", "Val/a/1.jpg"], "Train, Val .*rename them to 'train' and 'val'"),
        (["a/1.heic", "b/1.heic"], r"no folder with images; skipped 2 class .*a \(1 \.heic\)"),
    ],
)
def test_errors_name_the_likely_reason(files, message, tmp_path):
    make(tmp_path, *files)
    with pytest.raises(UsageError, match=message) as caught:
        open_folder(str(tmp_path), "train", 0.2, 0)
    assert "\n" not in str(caught.value)


def test_a_deep_tree_and_names_of_any_bytes_are_read(tmp_path):
    pairs(tmp_path)
    deep = tmp_path / "a"
    for _ in range(300):
        deep /= "d"
        deep.mkdir()
    make(deep, "deep.png")
    name = b"\xff\n\x1b[31m.txt"
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"a", name))).write_bytes(b"text")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        finding = found(tmp_path)["extension"]
    finally:
        sys.setrecursionlimit(limit)
    assert len(open_folder(str(tmp_path), "all", 0.2, 0)) == 5
    assert r"a/\udcff\n\x1b[31m.txt" in finding.text and finding.text.isprintable()
    assert finding.examples == ("a/" + os.fsdecode(name),)


def test_three_thousand_files_match_another_walk_in_little_time(tmp_path):
    """The counts equal those of ``os.walk`` with the rules written once more."""
    names = ("x.jpg", "y.PNG", "z.heic", ".hidden.jpg", "notes.txt", "Thumbs.db")
    for split, count in (("train", 40), ("val", 10)):
        for label in "abcde":
            for folder in ("", "@eaDir", "sub"):
                path = tmp_path / split / label / folder
                path.mkdir(parents=True, exist_ok=True)
                for i in range(count // 3):
                    for name in names:
                        (path / f"{i}{name}" if name[0] in "xyzn" else path / name).touch()
                    (path / f".{i}.jpg").touch()
    expected, images = Counter(), 0
    for _, folders, files in os.walk(tmp_path):
        expected["system"] += folders.count("@eaDir")
        folders[:] = [name for name in folders if name != "@eaDir"]
        for name in files:
            kind = {".heic": "other format", ".txt": "extension", ".db": "system"}
            if name.startswith("."):
                expected["hidden"] += 1
            elif name.lower().endswith((".jpg", ".png")):
                images += 1
            else:
                expected[kind[os.path.splitext(name)[1]]] += 1
    start = time.monotonic()
    findings = found(tmp_path)
    assert time.monotonic() - start < 20  # quadratic work would take minutes
    assert {kind: finding.count for kind, finding in findings.items()} == expected
    assert sum(len(open_folder(str(tmp_path), s, 0.5, 0)) for s in ("train", "val")) == images


def test_predictions_of_a_folder_list_what_is_skipped(tmp_path):
    make(tmp_path, "1.png", "deep/2.JPG", ".3.png")
    make(tmp_path, "4.heic", content=HEIC)
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "gone").symlink_to("nowhere")
    images, texts = list_images(str(tmp_path))
    assert images == [str(tmp_path / name) for name in ("1.png", "deep/2.JPG", "gone.png")]
    assert [text.partition(":")[0] for text in texts] == [
        "skipped 1 image of an unsupported format (1 .heic)",
        "skipped 1 broken link",
        "skipped 1 hidden file or folder",
    ]


def test_the_walk_opens_no_file(tmp_path, monkeypatch):
    pairs(tmp_path)
    make(tmp_path, "a/x", "b/y.txt")

    def fail(*_):
        raise AssertionError("a file was opened")

    monkeypatch.setattr("os.open", fail)
    monkeypatch.setattr("builtins.open", fail)
    scan = FolderScan(str(tmp_path))
    assert list(scan.classes("")) == ["a", "b"]
