"""The checksum manifest of a checkpoint folder: the size and CRC-32 of every file in it.

Orbax checksums only part of its files: a flipped byte in an array's compressed data is restored
as different numbers. The manifest detects that; the trainer writes it once a folder is complete.
"""

import hashlib
import json
import os
import zlib
from typing import Any

from flax_resnet.files import write_atomically
from flax_resnet.schema import integer, mapping, number, read_json, record, sequence

FILE = "manifest.json"
_SCHEMA = record(
    metrics=mapping(number()),
    files=mapping(sequence(integer(), 2, 2), 1_000_000),
    crc32=integer(),
)
_CHUNK_BYTES = 2**20
# Orbax updates timestamps in this file after everything else is written.
_UNLISTED = (FILE, "_CHECKPOINT_METADATA")


def write(folder: str, metrics: dict[str, Any]) -> None:
    """Write the manifest of ``folder``'s current content, with its evaluation's ``metrics``."""
    files = {
        name: [os.path.getsize(path), _file_crc32(path)]
        for name, path in sorted(_files(folder).items())
        if name not in _UNLISTED
    }
    content = {"metrics": metrics, "files": files}
    content["crc32"] = _content_crc32(content)
    write_atomically(os.path.join(folder, FILE), json.dumps(content, indent=1) + "\n")


def exists(folder: str | os.PathLike[str]) -> bool:
    """Return whether ``folder`` has a manifest, valid or not."""
    return os.path.exists(os.path.join(folder, FILE))


def verify(folder: str) -> None:
    """Compare the files of ``folder`` with its manifest.

    Raises:
      ValueError: a listed file is missing or differs, or the manifest is missing or corrupt.
      OSError: a listed file cannot be read.
    """
    if not exists(folder):
        raise ValueError(f"it is incomplete: it has no {FILE}")
    try:
        files = _read(folder)["files"]
    except (OSError, ValueError) as error:
        raise ValueError(f"{FILE} is corrupt: {error}") from error
    existing = _files(folder)
    for name, (size, crc32) in files.items():
        path = existing.get(name)
        if path is None:
            raise ValueError(f"{name} is missing")
        if os.path.getsize(path) != size:
            raise ValueError(f"{name} has {os.path.getsize(path):,} bytes, not {size:,}")
        if _file_crc32(path) != crc32:
            raise ValueError(f"{name} is corrupt: its checksum differs")


def read_metrics(folder: str) -> dict[str, Any]:
    """Return the metrics in the manifest; empty if there are none or it cannot be read."""
    try:
        return _read(folder)["metrics"]
    except (OSError, ValueError):
        return {}


def fingerprint(folder: str) -> str:
    """Return the SHA-256 of the files' sizes and checksums; "" if they cannot be read."""
    try:
        files = _read(folder)["files"]
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _files(folder: str) -> dict[str, str]:
    """Return the paths of all regular files by their names below ``folder``."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    # Opening a pipe would wait for its other end.
    return {os.path.relpath(path, folder): path for path in paths if os.path.isfile(path)}


def _read(folder: str) -> dict[str, Any]:
    content = read_json(os.path.join(folder, FILE), _SCHEMA)
    if content.pop("crc32") != _content_crc32(content):
        raise ValueError("its own checksum differs")
    return content


def _content_crc32(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _file_crc32(path: str) -> int:
    crc32 = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc32 = zlib.crc32(chunk, crc32)
    return crc32
