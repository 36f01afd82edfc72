"""Preparing TFDS's own data sets from archives made here, and training on them without
TensorFlow. What needs TensorFlow is skipped where the extra ``prepare`` is not installed."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from train.data import preparation, staging
from train.data.archives import check_archives
from train.data.decode import decode_rgb
from train.data.prepared import open_builder, open_prepared, raw_records
from train.data.resized import resize, resized_name, shrink
from train.errors import RunError, UsageError

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not installed: pip install -e '.[prepare]'",
)
TRAIN, VALIDATION = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
# TFDS repairs these two by name, as the real archive has them wrong.
CMYK, PNG = "n01739381_1309.JPEG", "n02105855_2933.JPEG"
# Runs several commands, each given as a list in JSON. Fails if TensorFlow was imported.
WITHOUT_TENSORFLOW = """
import json, runpy, sys
for module, *arguments in map(json.loads, sys.argv[1:]):
    sys.argv[1:] = arguments
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
assert not [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where records begin is kept in a folder of the test's own, also by its processes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def photo(rng, height=48, width=64, channels=3):
    """Smooth random pixels."""
    small = rng.integers(0, 256, (5, 6, channels), np.uint8)
    return np.squeeze(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def encoded(pixels, kind="JPEG", mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind, **options)
    return buffer.getvalue()


def tar(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def imagenet_archives(folder):
    """A train and a validation archive of 150 and 60 images, built as image-net.org's are."""
    rng = np.random.default_rng(0)
    names = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt")).read_text().split()
    synsets = sorted({*names[:3], CMYK.partition("_")[0], PNG.partition("_")[0]})
    train = {}
    for synset in synsets:
        images = {f"{synset}_{n}.JPEG": encoded(photo(rng)) for n in range(30)}
        images[f"{synset}_0.JPEG"] = encoded(photo(rng, channels=1))
        if CMYK.startswith(synset):
            del images[f"{synset}_1.JPEG"]
            images[CMYK] = encoded(photo(rng, channels=4), mode="CMYK")
        if PNG.startswith(synset):
            del images[f"{synset}_1.JPEG"]
            images[PNG] = encoded(photo(rng), "PNG")
        train[f"{synset}.tar"] = tar(images)
    validation = {
        f"ILSVRC2012_val_{n:08d}.JPEG": encoded(photo(rng, 40 + n % 20, 50)) for n in range(1, 61)
    }
    folder.mkdir()
    (folder / TRAIN).write_bytes(tar(train))
    (folder / VALIDATION).write_bytes(tar(validation))
    return folder


def cifar_archive(folder):
    """CIFAR-10's archive, with as many images as those of ImageNet above, for one compilation."""
    rng = np.random.default_rng(1)
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    files = {"batches.meta.txt": "\n".join([*names, ""]).encode()}
    for name, count in [*((f"data_batch_{n}", 30) for n in range(1, 6)), ("test_batch", 60)]:
        records = rng.integers(0, 256, (count, 1 + 32 * 32 * 3), np.uint8)
        records[:, 0] %= 10
        files[f"{name}.bin"] = records.tobytes()
    folder.mkdir()
    archive = tar({f"cifar-10-batches-bin/{name}": data for name, data in files.items()}, "w:gz")
    (folder / "cifar-10-binary.tar.gz").write_bytes(archive)
    return folder


# In one process, since TensorFlow takes seconds to import. CIFAR's archive is found in the
# manual folder, as TFDS allows; only its checksum cannot be the published one.
PREPARE_ALL = """
import sys
from pathlib import Path
import tensorflow_datasets as tfds
from train import prepare
root = Path(sys.argv[1])
tfds.download.DownloadManager._register_or_validate_checksums = lambda self, *a, **k: None
for name in ("imagenet2012", "cifar10"):
    arguments = ["--dataset", name, "--data_dir", root / "array_record",
                 "--manual_dir", root / name, "--any_size"]
    sys.argv = ["prepare", *map(str, arguments)]
    assert prepare.main() == 0
    config = tfds.download.DownloadConfig(manual_dir=root / name, try_download_gcs=False)
    builder = tfds.builder(name, data_dir=root / "tfrecord")
    builder.download_and_prepare(download_config=config, file_format="tfrecord")
    options = tfds.ReadConfig(interleave_cycle_length=1)
    for split in ("train", "train[10:95%]", "train[-7:]+train[3:5]"):
        decoders = {"image": tfds.decode.SkipDecoding()}
        examples = builder.as_dataset(split=split, decoders=decoders, read_config=options)
        with open(root / f"{name}-{split}.bin", "wb") as file:
            for example in examples.as_numpy_iterator():
                file.write(example["image"] + b"/%d;" % example["label"])
"""


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with the archives and what the stock builders made of them in both formats."""
    root = tmp_path_factory.mktemp("prepared")
    imagenet_archives(root / "imagenet2012")
    cifar_archive(root / "cifar10")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE_ALL, str(root)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root


def small_run(name, data_dir, workdir):
    """train.main for two steps at 32×32 pixels; all of one shape, so that one is compiled."""
    overrides = {
        "dataset.name": f"tfds:{name}",
        "dataset.data_dir": data_dir,
        "dataset.eval_split": "test" if name == "cifar10" else "validation",
        "dataset.image_size": 32,
        "model.num_classes": 1000,
        "num_steps": 2,
        "batch_size": 16,
    }
    return (
        *("train.main", "--config", "configs/resnet20_digits.py", "--workdir", workdir),
        *(f"--config.{key}={value}" for key, value in overrides.items()),
    )


def without_tensorflow(commands, *runs):
    """Runs commands of the project in one process that must not import TensorFlow."""
    runs = [json.dumps([str(word) for word in run]) for run in runs]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *runs],
        cwd=commands.root,
        env=os.environ | {"PYTHONPATH": str(commands.root), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


@needs_tensorflow
def test_training_on_what_the_stock_builders_prepared(prepared, commands, tmp_path):
    runs = [
        small_run(name, prepared / file_format, tmp_path / f"{name}-{file_format}")
        for name in ("imagenet2012", "cifar10")
        for file_format in ("array_record", "tfrecord")
    ]
    folder = prepared / "tfrecord"
    done = without_tensorflow(
        commands,
        *runs,
        ("train.evaluate", "--workdir", tmp_path / "imagenet2012-tfrecord"),
        ("train.prepare", "--dataset=imagenet2012", f"--data_dir={folder}", "--resize=40"),
        small_run("imagenet2012_40", folder, tmp_path / "small"),
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [result["examples"] for result in told] == [60] * 6
    imagenet, imagenet_too, cifar, cifar_too, evaluated, _ = told
    assert imagenet == imagenet_too == evaluated and cifar == cifar_too  # in either format
    assert "207 images encoded anew, 3 kept" in done.stdout


@needs_tensorflow
@pytest.mark.parametrize("name", ["imagenet2012", "cifar10"])
@pytest.mark.parametrize("split", ["train", "train[10:95%]", "train[-7:]+train[3:5]"])
def test_both_formats_give_the_records_that_tensorflow_reads(prepared, name, split):
    expected = (prepared / f"{name}-{split}.bin").read_bytes()
    for file_format in ("array_record", "tfrecord"):
        source = open_prepared(name, str(prepared / file_format), split)
        records = (source[i] for i in range(len(source)))
        assert b"".join(image + b"/%d;" % label for image, label in records) == expected


@needs_tensorflow
def test_imagenets_odd_files_are_proper_and_classes_have_their_names(prepared):
    source = open_prepared("imagenet2012", str(prepared / "tfrecord"), "train")
    assert len(source) == 150 and len(source.class_names) == 1000
    assert source.class_names[0] == "n01440764"
    labels = [source[i][1] for i in range(len(source))]
    assert sorted({labels.count(label) for label in set(labels)}) == [30]
    for index in range(len(source)):
        assert source[index][0][:2] == b"\xff\xd8"
        assert source.decoded(index)[0].shape == (48, 64, 3)


@needs_tensorflow
def test_a_second_call_does_nothing_and_takes_no_tensorflow(prepared, commands):
    folder = prepared / "array_record"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = without_tensorflow(
        commands, ("train.prepare", "--dataset=imagenet2012", f"--data_dir={folder}")
    )
    assert again.returncode == 0, again.stderr
    assert "150 train, 60 validation" in again.stdout and "nothing to prepare" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@needs_tensorflow
def test_what_cannot_be_downloaded_is_told_in_one_line(commands, tmp_path):
    cifar_archive(tmp_path / "cifar10")
    arguments = ("--dataset=cifar10", "--data_dir", tmp_path / "data")
    refused = commands.run("train.prepare", *arguments, "--manual_dir", tmp_path / "cifar10")
    assert refused.returncode == 1
    assert "is not the published one" in refused.stderr
    assert refused.stderr.count("\n") == 1 and "Traceback" not in refused.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["downloads"]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_preparing_says_that_it_takes_tensorflow(commands, tmp_path):
    done = commands.run("train.prepare", "--dataset=cifar10", "--data_dir", tmp_path)
    assert done.returncode == 1
    assert "pip install 'flax-resnet[prepare]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=cifer10"], "no data set 'cifer10'.*Did you mean: cifer10 -> cifar10"),
        (["--dataset=digits"], "nothing to prepare"),
        (["--dataset=cifar10", "--resize=3"], "from 16 to 8192"),
        (["--resize=400"], "required: --dataset"),
    ],
)
def test_wrong_usage_is_told_in_one_line(monkeypatch, tmp_path, arguments, message):
    from train import prepare

    monkeypatch.setattr(sys, "argv", ["prepare", *arguments, f"--data_dir={tmp_path}"])
    with pytest.raises(UsageError, match=message) as caught:
        prepare.main()
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def sparse(path, size):
    """A tar archive of a size, most of which takes no room."""
    path.write_bytes(tar({"n01440764.tar": b""}))
    os.truncate(path, size)


def test_archives_are_checked_by_name_and_size(tmp_path):
    def problem(any_size=False):
        with pytest.raises(RunError) as caught:
            check_archives("imagenet2012", str(tmp_path / "manual"), any_size)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no folder" in problem() and "ILSVRC2012_img_val.tar" in problem()
    manual = tmp_path / "manual"
    manual.mkdir()
    assert "ILSVRC2012_img_train.tar is not there; it comes from https://image-net" in problem()
    (manual / "n01440764").mkdir()
    assert "extracted files" in problem()
    (manual / f"{TRAIN}.part").touch()
    assert f"but {TRAIN}.part: finish its download" in problem()
    sparse(tmp_path / TRAIN, 147_897_477_120)
    assert f"but in {tmp_path}: name that" in problem()
    (tmp_path / TRAIN).rename(manual / TRAIN)
    assert VALIDATION in problem()
    sparse(manual / VALIDATION, 10_240)
    assert "has 10,240 bytes and should have 6,744,924,160" in problem()
    assert "not complete" in problem()
    assert check_archives("imagenet2012", str(manual), any_size=True) == 147_897_477_120 + 10_240
    os.truncate(manual / VALIDATION, 6_744_924_160)
    assert check_archives("imagenet2012", str(manual), any_size=False) == 154_642_401_280
    (manual / VALIDATION).write_bytes(b"<html>log in first</html>")
    assert "is not a tar archive" in problem(any_size=True)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    left = tmp_path / "incomplete.cifar10.abc"
    left.mkdir()
    with pytest.raises(RunError, match=r"needs about 1000 TB and its disk has .* free"):
        with staging.staging(str(tmp_path), "cifar10", needed=10**15):
            raise AssertionError
    assert not any(tmp_path.iterdir())  # what was left over makes room first


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (147897477120, "148 GB")],
)
def test_sizes_are_readable(number, text):
    assert staging.size(number) == text


def test_what_a_killed_preparation_left_is_removed(tmp_path, capsys):
    code = (
        "import os, signal, sys; from train.data.staging import staging\n"
        "with staging(sys.argv[1], 'cifar10') as own:\n"
        "    open(os.path.join(own, 'shard'), 'wb').write(bytes(5000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2])
    (left,) = tmp_path.glob("incomplete.cifar10.*")
    with staging.staging(str(tmp_path), "cifar10") as own:
        assert not left.exists() and os.path.isdir(own)
        # Two at once: the second stops, and the first is not disturbed.
        with pytest.raises(RunError, match="another process is preparing cifar10"):
            with staging.staging(str(tmp_path), "cifar10"):
                pass
        with staging.staging(str(tmp_path), "mnist") as other:
            assert other != own
        assert os.path.isdir(own)
    assert (
        f"removed 5.0 kB that an interrupted preparation left in {left}" in capsys.readouterr().out
    )
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(RunError, match="cannot write to"):
            with staging.staging(str(folder), "cifar10"):
                pass


class TwoKinds(tfds.core.GeneratorBasedBuilder):
    """A builder that prepares without TensorFlow, to run the steps around it."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="grey", version="1.0.0"),
        tfds.core.BuilderConfig(name="colour", version="1.0.0"),
    ]
    fails = False

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for n in range(4):
            if self.fails and n == 2:
                raise ValueError("the archive\nis not what it should be")
            yield n, {"image": encoded(np.full((8, 8, 3), n, np.uint8), "PNG"), "label": n % 2}


@pytest.fixture
def prepare_without_tensorflow(monkeypatch):
    monkeypatch.setattr(preparation, "_require_tensorflow", lambda: None)
    return preparation.prepare


def test_a_configuration_is_prepared_beside_its_place_and_moved(
    prepare_without_tensorflow, tmp_path, capsys
):
    folder = str(tmp_path / "data")
    builder = prepare_without_tensorflow("two_kinds/colour", folder)
    told = capsys.readouterr().out
    assert "not known how much it needs" in told and "preparing two_kinds/colour" in told
    assert "two_kinds/colour/1.0.0 (4 train images" in told
    assert builder.info.file_format.value == "array_record"
    assert len(open_prepared("two_kinds/colour", folder, "train")) == 4
    with pytest.raises(RunError, match="two_kinds/grey is not in"):  # the default
        open_prepared("two_kinds", folder, "train")
    prepare_without_tensorflow("two_kinds/grey", folder)
    assert len(open_prepared("two_kinds", folder, "train")) == 4
    prepare_without_tensorflow("two_kinds", folder)
    assert "two_kinds/grey/1.0.0" in capsys.readouterr().out.splitlines()[-1]
    found = sorted(str(path.relative_to(folder)) for path in Path(folder).glob("*/*"))
    assert found == [
        "downloads/extracted",
        *(f"two_kinds/{n}" for n in (".config", "colour", "grey")),
    ]
    small = resize(open_builder("two_kinds/colour", folder), folder, 16)
    assert small.name == "two_kinds_colour_16"
    assert len(open_prepared("two_kinds_colour_16", folder, "train")) == 4


def test_a_preparation_that_fails_is_told_in_one_line_and_leaves_nothing(
    prepare_without_tensorflow, tmp_path, monkeypatch
):
    monkeypatch.setattr(TwoKinds, "fails", True)
    with pytest.raises(RunError, match="cannot prepare two_kinds: ValueError: the archive is"):
        prepare_without_tensorflow("two_kinds", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_what_tfds_left_unfinished_is_reported(prepare_without_tensorflow, tmp_path, capsys):
    left = tmp_path / "two_kinds" / "grey" / "incomplete.ABCDEF_1.0.0"
    left.mkdir(parents=True)
    (left / "shard").write_bytes(bytes(70_000))
    prepare_without_tensorflow("two_kinds", str(tmp_path))
    assert f"note: {left} holds 70.0 kB of a preparation by other means" in capsys.readouterr().out
    assert left.exists()


def test_signs_of_life_where_there_is_no_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preparation, "HEARTBEAT", 0.05)
    (tmp_path / "shard").write_bytes(bytes(3000))
    with preparation._signs_of_life(str(tmp_path)):
        time.sleep(0.2)
    assert "… 0 min, 3.0 kB written" in capsys.readouterr().out


def test_the_first_of_two_to_finish_is_kept(tmp_path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dataset_info.json").write_text(folder)
    place = str(tmp_path / "place" / "1.0.0")
    assert staging.publish(str(tmp_path / "first"), place)
    assert not staging.publish(str(tmp_path / "second"), place)
    assert Path(place, "dataset_info.json").read_text() == "first"


@pytest.fixture
def photos(tmp_path):
    """A data set of images of many kinds, as TFRecord or ArrayRecord in ``tmp_path``."""
    rng = np.random.default_rng(2)
    images = {
        "large": encoded(photo(rng, 90, 120)),
        "tall": encoded(photo(rng, 150, 70)),
        "small": encoded(photo(rng, 30, 60)),
        "small grey": encoded(photo(rng, 30, 60, 1)),
        "large grey": encoded(photo(rng, 90, 120, 1)),
        "cmyk": encoded(photo(rng, 90, 120, 4), mode="CMYK"),
        "small cmyk": encoded(photo(rng, 30, 60, 4), mode="CMYK"),
        "small png": encoded(photo(rng, 30, 60), "PNG"),
        "turned": turned(photo(rng, 90, 120)),
        "broken": b"\xff\xd8broken",
    }
    write_array_record(tmp_path, images)
    return images


def turned(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels, exif=exif)


def write_array_record(folder, images):
    """A prepared data set ``photos`` with a text feature, in three shards."""
    from array_record.python import array_record_module

    place = folder / "photos" / "2.1.0"
    place.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "name": tfds.features.Text(),
        }
    )
    features.save_config(place)
    records = [
        features.serialize_example({"image": image, "label": n % 2, "name": name.encode()})
        for n, (name, image) in enumerate(images.items())
    ]
    lengths, start = [4, 4, len(records) - 8], 0
    for number, length in enumerate(lengths):
        shard = place / f"photos-train.array_record-{number:05d}-of-00003"
        writer = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
        for record in records[start : start + length]:
            writer.write(record)
        writer.close()
        start += length
    split = {
        "name": "train",
        "shardLengths": [str(length) for length in lengths],
        "numBytes": str(sum(map(len, records))),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "photos", "version": "2.1.0", "fileFormat": "array_record", "splits": [split]}
    (place / "dataset_info.json").write_text(json.dumps(info))


def test_smaller_copies_keep_order_labels_and_other_features(photos, tmp_path, capsys):
    original = open_builder("photos", str(tmp_path))
    small = resize(original, str(tmp_path), 48)
    assert resized_name(original, 48) == small.name == "photos_48"
    told = capsys.readouterr().out
    assert "7 images encoded anew, 2 kept" in told and "1 cannot be decoded" in told
    before = open_prepared("photos", str(tmp_path), "train")
    after = open_prepared("photos_48", str(tmp_path), "train")
    assert after.class_names == ("a", "b")
    assert [after[i][1] for i in range(10)] == [before[i][1] for i in range(10)]
    names = [
        small.info.features.deserialize_example_np(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )["name"]
        for record in raw_records(small, "photos_48", "train")
    ]
    assert [name.decode() for name in names] == list(photos)
    assert small.info.splits["train"].shard_lengths == [4, 4, 2]
    kept = [name for i, name in enumerate(photos) if after[i][0] == before[i][0]]
    assert kept == ["small", "small grey", "broken"]
    for index, name in enumerate(photos):
        if name in kept:
            continue
        with Image.open(io.BytesIO(after[index][0])) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB"), name
            assert not image.getexif()
        pixels, expected = after.decoded(index)[0], decode_rgb(photos[name])
        assert min(pixels.shape[:2]) == min(48, *expected.shape[:2]), name
        expected = cv2.resize(expected, pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(pixels.astype(int) - expected).mean() < 4, name
    # A second call does nothing, and nothing but the data sets is left.
    resize(original, str(tmp_path), 48)
    assert "nothing to resize" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "photos_48"]


def test_resizing_that_is_interrupted_leaves_nothing(photos, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.data.resized._describe", interrupt)
    with pytest.raises(KeyboardInterrupt):
        resize(open_builder("photos", str(tmp_path)), str(tmp_path), 48)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_nothing_is_resized_where_no_image_is_larger(data_dir):
    from train.data.prepared import open_digits

    open_digits(data_dir, "test")
    with pytest.raises(UsageError, match="are 8×8, so none is larger"):
        resize(open_builder("sklearn_digits", data_dir), data_dir, 400)


def test_resizing_shrinks_to_the_shorter_side_without_aliasing():
    stripes = np.zeros((200, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode_rgb(shrink(encoded(stripes, "PNG"), 50))
    assert pixels.shape == (50, 75, 3)
    assert 115 < pixels.min() and pixels.max() < 140
    with pytest.raises(ValueError):
        shrink(b"no image", 50)


def test_a_copy_that_is_not_there_names_its_command(tmp_path):
    with pytest.raises(UsageError, match=r"train\.prepare --dataset=imagenet2012 --resize=400"):
        open_prepared("imagenet2012_400", str(tmp_path), "train")
