"""Data sets that TFDS prepared: everything that knows TFDS."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

import ml_collections
import tensorflow_datasets as tfds

from train.data.source import Source
from train.errors import RunError, UsageError


def data_dir(dataset: ml_collections.ConfigDict) -> str:
    """The folder of TFDS data sets: config.dataset.data_dir or TFDS's default, in full."""
    chosen = dataset.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in chosen:  # a bucket
        return chosen
    return os.path.abspath(os.path.expanduser(chosen))


def open_digits(folder: str, split: str) -> Source:
    """Opens a split of the embedded digits, and prepares them in ``folder`` on first use."""
    return _source(_prepared_digits(folder), "digits", split)


def open_prepared(name: str, folder: str, split: str) -> Source:
    """Opens ``split`` of the TFDS data set ``name``, prepared in ``folder``."""
    return _source(_prepared(name, folder), f"tfds:{name}", split)


def _prepared_digits(folder: str) -> tfds.core.DatasetBuilder:
    from train.data.digits import SklearnDigits

    def open_builder() -> SklearnDigits:
        return SklearnDigits(data_dir=folder, file_format="array_record")

    try:
        builder = open_builder()
        if not builder.is_prepared():
            with contextlib.redirect_stdout(None), _no_tfds_bars():
                builder.download_and_prepare()
        return builder
    except OSError as error:
        # Another process that prepared them at the same time may have been first.
        if os.path.isdir(folder) and open_builder().is_prepared():
            return open_builder()
        raise RunError(
            f"cannot write the digits into {folder!r} ({error}); name a folder that can be"
            " written with --config.dataset.data_dir=FOLDER"
        ) from error


@contextlib.contextmanager
def _no_tfds_bars():
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()


def _prepared(name: str, folder: str) -> tfds.core.DatasetBuilder:
    try:
        with contextlib.redirect_stdout(None):  # TFDS's banners
            builder = tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        # TFDS says which name was near, and then lists all thousand.
        near = [line for line in str(error).splitlines() if "Did you mean" in line]
        raise UsageError(
            f"TFDS has no data set {name!r} and none is prepared in {folder!r}."
            f" {' '.join(near)}".rstrip()
        ) from None
    except ImportError as error:
        missing = error.name or str(error).rpartition("No module named ")[2].strip("'")
        raise RunError(
            f"{name} is not prepared in {folder!r} and its code needs {missing}"
        ) from error
    except Exception as error:  # a version, configuration or name that TFDS cannot parse
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"config.dataset.name='tfds:{name}': {reason}") from error
    if not builder.is_prepared():
        raise RunError(_how_to_prepare(builder, folder))
    if builder.info.file_format.name != "ARRAY_RECORD":
        raise RunError(
            f"{builder.data_path} was prepared as {builder.info.file_format.value}, which has no"
            f" random access; prepare it again with: {_prepare_command(builder, folder)}"
        )
    return builder


def _how_to_prepare(builder: tfds.core.DatasetBuilder, folder: str) -> str:
    return (
        f"{builder.name} is not in {folder!r} (there is no {builder.data_path})."
        f" Prepare it once with: pip install tensorflow-cpu &&"
        f" {_prepare_command(builder, folder)}; or name the folder that has it with"
        " --config.dataset.data_dir=FOLDER"
    )


def _prepare_command(builder: tfds.core.DatasetBuilder, folder: str) -> str:
    command = f"tfds build {builder.name} --file_format=array_record --data_dir={folder}"
    if builder.name == "imagenet2012":
        command += (
            " --manual_dir=DIR, where DIR has ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
            " from image-net.org"
        )
    return command


def _source(builder: tfds.core.DatasetBuilder, name: str, split: str) -> Source:
    features = builder.info.features
    image_key = _only(features, tfds.features.Image, name)
    label_key = _only(features, tfds.features.ClassLabel, name)
    try:
        records: Sequence = builder.as_data_source(
            split=split, decoders={image_key: tfds.decode.SkipDecoding()}
        )
        len(records)
    except Exception as error:  # TFDS raises many kinds
        splits = ", ".join(builder.info.splits)
        raise UsageError(
            f"{name} has no images under the split {split!r}; it has {splits}"
        ) from error
    return Source(name, split, tuple(features[label_key].names), records, image_key, label_key)


def _only(features: Any, kind: type, name: str) -> str:
    """The key of the feature of this kind; of several, the one called image or label."""
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    if not keys:
        raise UsageError(f"{name} has no {kind.__name__} feature; it has {', '.join(features)}")
    preferred = [key for key in keys if key in ("image", "label")]
    return (preferred or keys)[0]
