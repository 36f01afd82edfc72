"""Tests of preparing TFDS data sets and of training on them without TensorFlow.

The archives are generated. Tests that require TensorFlow are skipped without the extra
``prepare``.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.pictures import encode
from tests.train.prepare.archives import cifar_archive, imagenet_archives
from train.data.sources.tfds_source import open_builder, open_prepared
from train.prepare import preparation
from train.prepare.resized import resize_dataset
from train.runtime.errors import RunError, UsageError

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is not installed: pip install -e '.[prepare]'",
)
# Runs commands given as JSON lists, and fails if TensorFlow was imported.
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
    """Use a separate cache of record offsets, in subprocesses too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


# One process, since importing TensorFlow takes seconds. TFDS finds CIFAR's archive in the manual
# folder; its checksum cannot match the published one.
PREPARE_ALL = """
import sys
from pathlib import Path
import tensorflow_datasets as tfds
from train.prepare.__main__ import main
root = Path(sys.argv[1])
tfds.download.DownloadManager._register_or_validate_checksums = lambda self, *a, **k: None
for name in ("imagenet2012", "cifar10"):
    arguments = ["--dataset", name, "--data_dir", root / "array_record",
                 "--manual_dir", root / name, "--any_size"]
    sys.argv = ["prepare", *map(str, arguments)]
    assert main() == 0
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
    """Return a folder with the archives and the data sets of TFDS's builders in both formats."""
    root = tmp_path_factory.mktemp("prepared")
    imagenet_archives(root / "imagenet2012")
    cifar_archive(root / "cifar10")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE_ALL, str(root)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return root


def small_run(name, data_dir, workdir):
    """Return a command of two steps at 32×32 pixels, always of one shape to compile only once."""
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
    """Run commands of the project in one process that must not import TensorFlow."""
    runs = [json.dumps([str(word) for word in run]) for run in runs]
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *runs],
        cwd=commands.root,
        env=os.environ | {"PYTHONPATH": str(commands.root), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


@needs_tensorflow
def test_training_on_prepared_data_sets(prepared, commands, tmp_path):
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
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [result["examples"] for result in results] == [60] * 6
    imagenet, imagenet_too, cifar, cifar_too, evaluated, _ = results
    assert imagenet == imagenet_too == evaluated and cifar == cifar_too  # in both formats
    assert "207 images re-encoded, 3 unchanged" in done.stdout


@needs_tensorflow
@pytest.mark.parametrize("name", ["imagenet2012", "cifar10"])
@pytest.mark.parametrize("split", ["train", "train[10:95%]", "train[-7:]+train[3:5]"])
def test_both_formats_return_the_records_that_tensorflow_reads(prepared, name, split):
    expected = (prepared / f"{name}-{split}.bin").read_bytes()
    for file_format in ("array_record", "tfrecord"):
        source = open_prepared(name, str(prepared / file_format), split)
        records = (source[i] for i in range(len(source)))
        assert b"".join(image + b"/%d;" % label for image, label in records) == expected


@needs_tensorflow
def test_imagenet_repaired_files_are_jpeg_and_classes_have_names(prepared):
    source = open_prepared("imagenet2012", str(prepared / "tfrecord"), "train")
    assert len(source) == 150 and len(source.class_names) == 1000
    assert source.class_names[0] == "n01440764"
    labels = [source[i][1] for i in range(len(source))]
    assert sorted({labels.count(label) for label in set(labels)}) == [30]
    for index in range(len(source)):
        assert source[index][0][:2] == b"\xff\xd8"
        assert source.decode(index)[0].shape == (48, 64, 3)


@needs_tensorflow
def test_prepared_data_set_needs_neither_changes_nor_tensorflow(prepared, commands):
    folder = prepared / "array_record"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = without_tensorflow(
        commands, ("train.prepare", "--dataset=imagenet2012", f"--data_dir={folder}")
    )
    assert again.returncode == 0, again.stderr
    assert "150 train, 60 validation" in again.stdout and "nothing to prepare" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@needs_tensorflow
def test_checksum_mismatch_is_a_one_line_error(commands, tmp_path):
    cifar_archive(tmp_path / "cifar10")
    arguments = ("--dataset=cifar10", "--data_dir", tmp_path / "data")
    process = commands.run("train.prepare", *arguments, "--manual_dir", tmp_path / "cifar10")
    assert process.returncode == 1
    assert "checksum mismatch in a file of cifar10" in process.stderr
    assert process.stderr.count("\n") == 1 and "Traceback" not in process.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["downloads"]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_missing_tensorflow_is_a_one_line_error(commands, tmp_path):
    done = commands.run("train.prepare", "--dataset=cifar10", "--data_dir", tmp_path)
    assert done.returncode == 1
    assert "pip install 'flax-resnet[prepare]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset=cifer10"], "no data set 'cifer10'.*Did you mean: cifer10 -> cifar10"),
        (["--dataset=digits"], "needs no preparation"),
        (["--dataset=cifar10", "--resize=3"], "from 16 to 8192"),
        (["--resize=400"], "required: --dataset"),
    ],
)
def test_usage_errors_have_one_line(monkeypatch, tmp_path, arguments, message):
    from train.prepare.__main__ import main

    monkeypatch.setattr(sys, "argv", ["prepare", *arguments, f"--data_dir={tmp_path}"])
    with pytest.raises(UsageError, match=message) as caught:
        main()
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


class TwoConfigs(tfds.core.GeneratorBasedBuilder):
    """A builder that works without TensorFlow, to run the steps around it."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="gray", version="1.0.0"),
        tfds.core.BuilderConfig(name="color", version="1.0.0"),
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
                raise ValueError("the archive\nis invalid")
            yield n, {"image": encode(np.full((8, 8, 3), n, np.uint8), "PNG"), "label": n % 2}


@pytest.fixture
def prepare_without_tensorflow(monkeypatch):
    monkeypatch.setattr(preparation, "_require_tensorflow", lambda: None)
    return preparation.prepare


def test_configuration_is_prepared_in_a_temporary_folder_and_moved(
    prepare_without_tensorflow, tmp_path, capsys
):
    folder = str(tmp_path / "data")
    builder = prepare_without_tensorflow("two_configs/color", folder)
    output = capsys.readouterr().out
    assert "required space unknown" in output and "preparing two_configs/color" in output
    assert "two_configs/color/1.0.0 (4 train images" in output
    assert builder.info.file_format.value == "array_record"
    assert len(open_prepared("two_configs/color", folder, "train")) == 4
    with pytest.raises(RunError, match="two_configs/gray is not in"):  # the default
        open_prepared("two_configs", folder, "train")
    prepare_without_tensorflow("two_configs/gray", folder)
    assert len(open_prepared("two_configs", folder, "train")) == 4
    prepare_without_tensorflow("two_configs", folder)
    assert "two_configs/gray/1.0.0" in capsys.readouterr().out.splitlines()[-1]
    paths = sorted(str(path.relative_to(folder)) for path in Path(folder).glob("*/*"))
    assert paths == [
        "downloads/extracted",
        *(f"two_configs/{n}" for n in (".config", "color", "gray")),
    ]
    small = resize_dataset(open_builder("two_configs/color", folder), folder, 16)
    assert small.name == "two_configs_color_16"
    assert len(open_prepared("two_configs_color_16", folder, "train")) == 4


def test_failed_preparation_is_a_one_line_error_and_leaves_no_files(
    prepare_without_tensorflow, tmp_path, monkeypatch
):
    monkeypatch.setattr(TwoConfigs, "fails", True)
    with pytest.raises(RunError, match="cannot prepare two_configs: ValueError: the archive is"):
        prepare_without_tensorflow("two_configs", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_unfinished_preparation_of_tfds_is_reported(prepare_without_tensorflow, tmp_path, capsys):
    leftover = tmp_path / "two_configs" / "gray" / "incomplete.ABCDEF_1.0.0"
    leftover.mkdir(parents=True)
    (leftover / "shard").write_bytes(bytes(70_000))
    prepare_without_tensorflow("two_configs", str(tmp_path))
    assert f"note: {leftover} holds 70.0 kB of an unfinished preparation" in capsys.readouterr().err
    assert leftover.exists()


def test_progress_lines_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preparation, "PROGRESS_SECONDS", 0.05)
    (tmp_path / "shard").write_bytes(bytes(3000))
    with preparation._progress_lines(str(tmp_path)):
        time.sleep(0.2)
    assert "… 0 min, 3.0 kB written" in capsys.readouterr().out
