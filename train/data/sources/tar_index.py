"""An index of the samples in a tar file, so that they can be read in any order.

As in WebDataset, the files of a sample have the same name up to the first dot: ``a/0001.jpg`` and
``a/0001.cls`` are image and label of the sample ``a/0001``. Nothing is extracted.
"""

import json
import os
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from flax_resnet.files import open_regular
from flax_resnet.images.formats import EXTENSIONS
from flax_resnet.text import error_reason, truncate
from train.data.sources.index_cache import load_index, save_index
from train.runtime.errors import RunError, UsageError

_VERSION = 1
_KIND = "webdataset"  # folder in the cache
_MAX_LABEL_BYTES = 2**20
_SAMPLE_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_JSON_FIELDS = ("label", "cls", "class")  # in order of preference
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


@dataclass
class TarIndex:
    """The samples of a tar file, in order.

    Attributes:
      names: their names.
      starts: positions of the images in the file.
      sizes: sizes of the images in bytes.
      labels: class numbers or names.
    """

    names: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    labels: list[int | str] = field(default_factory=list)


def index_tar(path: str, image_key: str = "", label_key: str = "") -> TarIndex:
    """Return the samples of a tar file, from the cache if it has not changed.

    Args:
      path: the file.
      image_key: extension of the images; default: that of any image format.
      label_key: extension of the labels, such as ``"cls"``, or a field of a JSON file, such as
        ``"json.name"``; default: ``cls``, or ``json`` with a usual field.

    Raises:
      RunError: the file is missing, compressed or corrupt, or a sample is incomplete.
      UsageError: a sample has several images.
    """
    try:
        status = os.stat(path)
        keys = zlib.crc32(f"{image_key}\0{label_key}".encode(errors="surrogateescape"))
        key = (_VERSION, status.st_size, status.st_mtime_ns, keys)
        content = load_index(_KIND, path, key)
        if content is not None:
            return TarIndex(**json.loads(content))
        with open_regular(path) as file:
            index = _scan(file, status.st_size, path, image_key, label_key)
    except FileNotFoundError:
        raise RunError(f"the shard {path} does not exist") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    save_index(_KIND, path, key, json.dumps(vars(index)).encode())
    return index


def _scan(file: BinaryIO, size: int, path: str, image_key: str, label_key: str) -> TarIndex:
    head = file.read(6)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise RunError(
                f"{path} is compressed with {name}, which permits no random access; decompress it"
            )
    samples: dict[str, dict[str, tuple[int, int]]] = {}  # the place of each file by extension
    for member in _members(file, size, path):
        match = _SAMPLE_NAME.fullmatch(member.name)
        if not match:  # hidden, or without an extension
            continue
        name, extension = match[1], match[2].lower()
        parts = samples.setdefault(name, {})
        if extension in parts:
            raise RunError(f"{path} has two files {truncate(member.name)}; rename one of them")
        parts[extension] = member.offset_data, member.size
    index = TarIndex()
    for name, parts in samples.items():
        if not _is_sample(parts, image_key, label_key):
            continue
        where = f"the sample {truncate(name)} in {path}"
        start, length = parts[_image_extension(parts, image_key, where)]
        index.names.append(name)
        index.starts.append(start)
        index.sizes.append(length)
        index.labels.append(_read_label(file, parts, label_key, where))
    return index


def _members(file: BinaryIO, size: int, path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar file.

    Raises:
      RunError: the file is corrupt, or has a member that is not safe.
    """
    file.seek(0)
    end = -1
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # TarFile keeps all of them
                if member.offset <= end or member.offset_data + member.size > size:
                    raise tarfile.ReadError("a size in it is wrong")
                end = member.offset
                name = truncate(member.name)
                if member.name.startswith("/") or ".." in member.name.split("/"):
                    raise RunError(
                        f"{path} has {name}, a path outside of its folder; pack it again"
                    )
                if member.isreg() and not member.issparse():
                    yield member
                elif not member.isdir():
                    raise RunError(
                        f"{path} has {name}, a link, a device or a sparse file; pack only regular"
                        " files"
                    )
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it has no end, so it may be truncated")
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise RunError(f"{path} is a corrupt tar file: {error_reason(error)}") from error


def _is_sample(parts: Collection[str], image_key: str, label_key: str) -> bool:
    """Return whether there is an image or a label: other files are not part of the data."""
    label = "json" if label_key.startswith("json.") else label_key.lower()
    expected = {image_key.lower(), label} - {""} or {"cls", "json"}
    return bool(expected & set(parts)) or any(f".{part}" in EXTENSIONS for part in parts)


def _image_extension(parts: dict[str, tuple[int, int]], image_key: str, where: str) -> str:
    if image_key:
        images = [image_key.lower()] if image_key.lower() in parts else []
    else:
        images = [extension for extension in parts if f".{extension}" in EXTENSIONS]
    if len(images) > 1:
        raise UsageError(
            f"{where} has several images: {', '.join(images)}; choose with"
            " --config.dataset.image_key=EXTENSION"
        )
    if not images:
        raise RunError(
            f"{where} has no image, only files ending in .{truncate(' and .'.join(parts))}"
        )
    return images[0]


def _read_label(
    file: BinaryIO, parts: dict[str, tuple[int, int]], label_key: str, where: str
) -> int | str:
    extension, _, json_field = label_key.partition(".")
    if extension != "json":
        extension, json_field = label_key.lower() or ("cls" if "cls" in parts else "json"), ""
    if extension not in parts:
        raise RunError(f"{where} has no label, a file ending in .{label_key or 'cls or .json'}")
    start, length = parts[extension]
    try:
        if length > _MAX_LABEL_BYTES:
            raise ValueError(f"it has {length:,} bytes")
        file.seek(start)
        text = file.read(length).decode("utf-8").strip()
        return _json_label(text, json_field) if extension == "json" else _text_label(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} has no valid .{extension}: {error_reason(error)}") from error


def _text_label(text: str) -> int | str:
    if not text:
        raise ValueError("it is empty")
    return int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else text


def _json_label(text: str, json_field: str) -> int | str:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it is not an object with fields")
    names = (json_field,) if json_field else _JSON_FIELDS
    values = [record[name] for name in names if name in record]
    if not values:
        raise ValueError(f"it has no field {' or '.join(names)}")
    if type(values[0]) not in (int, str):
        raise ValueError(f"{truncate(json.dumps(values[0]))} is neither a class number nor a name")
    return _text_label(str(values[0]))
