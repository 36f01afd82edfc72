"""Data sets prepared by TFDS (TensorFlow Datasets), read without TensorFlow."""

import contextlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath

from flax_resnet.decoding import ImageDecodeError
from train.data.mask_checks import check_sample
from train.data.masks import MaskSource
from train.data.registries import register_source
from train.data.source import DataSource, require_no_names, source_argument
from train.data.sources.tfds_masks import find_image, find_mask, mask_meaning
from train.data.sources.tfrecord import TFRecordFiles, file_error
from train.runtime import limits
from train.runtime.cli import program
from train.runtime.config_dict import ConfigDict
from train.runtime.errors import RunError, UsageError

FileFormat = tfds.core.FileFormat
RAW_BYTES = tfds.decode.DeserializeMethod.RAW_BYTES


@register_source("digits")
def open_digits(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of the digits, prepared in ``config.dataset.data_dir`` on first use."""
    source_argument(dataset)
    require_no_names(dataset)
    return _make_source(_prepared_digits(dataset.data_dir), "digits", split)


@register_source("tfds")
def open_tfds(dataset: ConfigDict, split: str) -> DataSource:
    """Open a split of a TFDS data set that is prepared in ``config.dataset.data_dir``."""
    name = source_argument(dataset, "NAME, such as 'tfds:cifar10'")
    builder = open_builder(name, dataset.data_dir)
    if (key := find_mask(builder.info.features, dataset.label_key)) is not None:
        return _make_mask_source(builder, split, key, dataset)
    return _make_source(builder, dataset.name, split, dataset.image_key, dataset.label_key)


def open_prepared(name: str, folder: str, split: str) -> DataSource:
    """Open ``split`` of the TFDS data set ``name``, prepared in ``folder``."""
    return _make_source(open_builder(name, folder), f"tfds:{name}", split)


def _prepared_digits(folder: str) -> tfds.core.DatasetBuilder:
    from train.data.sources.digits import SklearnDigits

    open_builder = partial(SklearnDigits, data_dir=folder, file_format="array_record")
    tfds.disable_progress_bar()
    try:
        builder = open_builder()
        if not builder.is_prepared():
            with contextlib.redirect_stdout(None):
                builder.download_and_prepare()
        return builder
    except OSError as error:
        # Another process may have prepared them at the same time.
        if os.path.isdir(folder) and open_builder().is_prepared():
            return open_builder()
        raise RunError(
            f"cannot write the digits to {folder!r} ({error}); set"
            " --config.dataset.data_dir=FOLDER to a writable folder"
        ) from error
    finally:
        tfds.enable_progress_bar()


def find_builder(name: str, folder: str) -> tfds.core.DatasetBuilder:
    """Return TFDS's builder of the data set ``name`` in ``folder``, prepared or not.

    Raises:
      UsageError: the name, configuration or version does not exist.
      RunError: the data set's code needs a package that is not installed.
    """
    try:
        with contextlib.redirect_stdout(None):  # TFDS's banners
            return tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        raise UsageError(_not_found(name, folder, str(error))) from None
    except ImportError as error:
        path, _, version = name.partition(":")
        prepared = _prepared_versions(epath.Path(folder) / path)
        if prepared and version in ("", *prepared):  # prepared data open without their code
            return _from_metadata(epath.Path(folder) / path / (version or prepared[-1]))
        missing = error.name or str(error).rpartition("No module named ")[2].strip("'")
        raise RunError(
            f"{name} is not prepared in {folder!r} and its code needs {missing}"
        ) from error
    except Exception as error:  # a version, configuration or name that TFDS cannot parse
        raise UsageError(f"tfds:{name}: {_first_line(error)}") from error


def _from_metadata(path: epath.Path) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder_from_directory(path)
    except Exception as error:
        raise RunError(f"cannot read the description in {path}: {_first_line(error)}") from error


def _not_found(name: str, folder: str, reason: str) -> str:
    message = f"TFDS has no data set {name!r} and none is prepared in {folder!r}."
    resized = re.fullmatch(r"(\w+)_(\d+)", name)
    if resized and resized[1] in tfds.list_builders(with_community_datasets=False):
        return (
            f"{message} Prepare it once with: {program('train.prepare')} --dataset={resized[1]}"
            f" --resize={resized[2]} --data_dir={folder}"
        )
    # TFDS suggests a similar name, and then lists all thousand.
    suggestion = [line for line in reason.splitlines() if "Did you mean" in line]
    return f"{message} {' '.join(suggestion)}".rstrip()


def open_builder(name: str, folder: str) -> tfds.core.DatasetBuilder:
    """Return the builder of the data set ``name``, prepared in ``folder``.

    Raises:
      UsageError: there is no data set of that name.
      RunError: the data set is missing or incomplete; the message explains how to get it.
    """
    builder = find_builder(name, folder)
    if not builder.is_prepared():
        raise RunError(_not_prepared(builder, folder))
    if builder.info.splits.total_num_examples == 0:
        raise RunError(f"{builder.data_path} holds no examples; {_prepare_again(builder, folder)}")
    return builder


def _not_prepared(builder: tfds.core.DatasetBuilder, folder: str) -> str:
    path, name = builder.data_path, builder.info.full_name.rpartition("/")[0]
    if reason := incomplete(builder, folder):
        return reason
    if others := _prepared_versions(path.parent):
        return (
            f"{path.parent} holds {builder.name} {' and '.join(others)}, but the installed TFDS"
            f" expects {path.name}; select the prepared version with"
            f" --config.dataset.name=tfds:{name}:{others[-1]}"
        )
    if (epath.Path(folder) / "dataset_info.json").exists():
        return (
            f"{folder!r} is itself a prepared data set; set config.dataset.data_dir to the folder"
            f" that contains {builder.name}/{path.name}"
        )
    return (
        f"{name} is not in {folder!r} (there is no {path}). Prepare it once with:"
        f" {prepare_command(builder, folder)}; or set --config.dataset.data_dir=FOLDER to the"
        " folder that contains it"
    )


def incomplete(builder: tfds.core.DatasetBuilder, folder: str) -> str | None:
    """Return the error message for a directory that exists but is not prepared, else None."""
    path = builder.data_path
    if builder.is_prepared() or not path.exists() or not any(path.iterdir()):
        return None
    return f"{path} has no dataset_info.json and is incomplete; {_prepare_again(builder, folder)}"


def _prepared_versions(path: epath.Path) -> list[str]:
    """Return the versions prepared in a data set's directory, the newest last."""
    versions = [
        tfds.core.Version(child.name)
        for child in (path.iterdir() if path.exists() else ())
        if tfds.core.Version.is_valid(child.name) and (child / "dataset_info.json").exists()
    ]
    return [str(version) for version in sorted(versions)]


def _prepare_again(builder: tfds.core.DatasetBuilder, folder: str) -> str:
    return f"delete it and prepare it again with: {prepare_command(builder, folder)}"


def prepare_command(builder: tfds.core.DatasetBuilder, folder: str) -> str:
    """Return the command that prepares a data set, for messages."""
    name = builder.info.full_name.rpartition("/")[0]
    command = f"{program('train.prepare')} --dataset={name} --data_dir={folder}"
    if builder.name == "imagenet2012":
        command += (
            " --manual_dir=DIR, where DIR contains ILSVRC2012_img_train.tar and"
            " ILSVRC2012_img_val.tar from image-net.org"
        )
    return command


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def raw_records(builder: tfds.core.DatasetBuilder, name: str, split: str) -> Sequence[bytes]:
    """Return random access to the serialized examples of ``split``, in order.

    Raises:
      UsageError: there is no such split, or it is empty.
      RunError: files are missing or corrupt, or their format has no random access.
    """
    formats = builder.info.available_file_formats()
    if FileFormat.ARRAY_RECORD in formats and builder.info.file_format != FileFormat.ARRAY_RECORD:
        # Prepared in several formats: like TFDS, use the one with random access.
        builder.info.set_file_format(
            FileFormat.ARRAY_RECORD, override=True, override_if_initialized=True
        )
    try:
        parts = builder.info.splits[split].file_instructions
        if not parts or min(part.take for part in parts) < 1:  # negative for [50%:20%]
            raise ValueError("it is empty")
    except Exception as error:  # TFDS raises many kinds
        splits = ", ".join(builder.info.splits)
        raise UsageError(
            f"{name} has no images in the split {split!r}; its splits are {splits}"
        ) from error
    if builder.info.file_format == FileFormat.TFRECORD:
        return TFRecordFiles(parts)
    if builder.info.file_format != FileFormat.ARRAY_RECORD:
        raise RunError(
            f"{builder.data_path} was prepared as {builder.info.file_format.value}, which is not"
            f" supported; {_prepare_again(builder, os.fspath(builder.data_dir_root))}"
        )
    _check_array_records({part.filename: part.examples_in_shard for part in parts})
    return builder.as_data_source(split=split, deserialize_method=RAW_BYTES)


def _check_array_records(files: dict[str, int]) -> None:
    """Raise RunError for missing and truncated files, which reading would find only later."""

    def check(path: str) -> None:
        if "://" in path:
            return
        if not os.path.exists(path):
            raise file_error(path, "is missing")
        records = 0
        with contextlib.suppress(RuntimeError):  # from closing a corrupt file
            reader = ArrayRecordReader(path)
            records = reader.num_records() if reader.ok() else records
            reader.close()
        if records != files[path]:
            raise file_error(path, f"is corrupt ({records:,} of {files[path]:,} records)")

    if problem := limits.array_record_threads():
        raise RunError(problem)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check, files))


class Examples(Sequence):
    """Random access to ``{image_key: encoded bytes, label_key: int}``, from any thread.

    A label that is an image, a mask, is encoded as well. Indexing raises ImageDecodeError for a
    record that cannot be parsed.
    """

    def __init__(
        self, raw: Sequence[bytes], features: Any, image_key: str, label_key: str, where: str
    ):
        self._raw = raw
        # Skip the time to parse other features, such as file names.
        keys = (image_key, label_key)
        self._features = tfds.features.FeaturesDict({key: features[key] for key in keys})
        images = (key for key in keys if isinstance(features[key], tfds.features.Image))
        self._decoders = {key: tfds.decode.SkipDecoding() for key in images}
        self._where = where

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            record = self._raw[index]
            example = self._features.deserialize_example_np(record, decoders=self._decoders)
            if None in example.values():
                raise ValueError("it has no image or no label")
            return example
        except (RunError, IndexError):
            raise
        except Exception as error:  # protobuf's, ArrayRecord's and TFDS's
            raise ImageDecodeError(
                f"record {index:,} of {self._where} is corrupt ({_first_line(error)})"
            ) from error


class Names(Sequence):
    """The records' names, such as ImageNet's file names, read on access."""

    def __init__(self, raw: Sequence[bytes], features: Any, key: str):
        self._raw, self._key = raw, key
        self._features = tfds.features.FeaturesDict({key: features[key]})

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> str:
        name = self._features.deserialize_example_np(self._raw[index])[self._key]
        return name.decode(errors="replace")


def _make_source(
    builder: tfds.core.DatasetBuilder,
    name: str,
    split: str,
    image_key: str = "",
    label_key: str = "",
) -> DataSource:
    features = builder.info.features
    image_key = find_feature(features, tfds.features.Image, name, image_key)
    label_key = find_feature(features, tfds.features.ClassLabel, name, label_key)
    class_names = tuple(features[label_key].names)
    keys = image_key, label_key
    return DataSource(name, split, class_names, **_records(builder, name, split, *keys))


def _make_mask_source(
    builder: tfds.core.DatasetBuilder, split: str, label_key: str, dataset: ConfigDict
) -> MaskSource:
    """Return the source of a split whose feature ``label_key`` has masks."""
    name, features = dataset.name, builder.info.features
    image_key = find_image(features, label_key, name, dataset.image_key)
    class_names, values = mask_meaning(builder.name, label_key, features[label_key], dataset)
    fields = _records(builder, name, split, image_key, label_key)
    source = MaskSource(name, split, class_names, **fields, mask_values=values)
    check_sample(source, dataset)
    return source


def _records(
    builder: tfds.core.DatasetBuilder, name: str, split: str, image_key: str, label_key: str
) -> dict[str, Any]:
    """Return the fields of a source that describe its records."""
    features = builder.info.features
    raw = raw_records(builder, name, split)
    where = f"{split!r} in {builder.data_path}"
    candidates = [key for key in ("file_name", "image/filename", "id") if key in features]
    text_keys = [key for key in candidates if isinstance(features[key], tfds.features.Text)]
    names = Names(raw, features, text_keys[0]) if text_keys else None
    parts = [
        (part.filename, part.skip, part.skip + part.take)
        for part in builder.info.splits[split].file_instructions
    ]
    return {
        "records": Examples(raw, features, image_key, label_key, where),
        "image_key": image_key,
        "label_key": label_key,
        "names": names,
        "parts": parts,
    }


def find_feature(features: Any, kind: type, name: str, chosen: str = "") -> str:
    """Return the key of the feature of type ``kind``; of several, ``"image"`` or ``"label"``.

    Args:
      features: all features of a data set.
      kind: the type.
      name: the data set, for the error.
      chosen: the key to return, if it is of that type.

    Raises:
      UsageError: there is none.
    """
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    if chosen in keys:
        return chosen
    if chosen or not keys:
        feature = f"{kind.__name__} feature" + f" {chosen!r}" * bool(chosen)
        raise UsageError(f"{name} has no {feature}; it has {', '.join(features)}")
    preferred = [key for key in keys if key in ("image", "label")]
    return (preferred or keys)[0]
