"""The checksum manifest of a checkpoint folder: the size and CRC-32 of every file in it.

Orbax checksums only part of its files: a flipped byte in an array's compressed data is restored
as different numbers. The manifest detects that; the trainer writes it once a folder is complete.
"""

import json
import os
import zlib
from typing import Any

from flax_resnet.files import write_atomically

FILE = "manifest.json"
_CHUNK_BYTES = 2**20
# Orbax updates timestamps in this file after everything else is written.
_UNLISTED = (FILE, "_CHECKPOINT_METADATA")


def write(folder: str, metrics: dict[str, Any]) -> None:
    """Write the manifest of ``folder``'s current content, with its evaluation's ``metrics``."""
    files = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if (relative := os.path.relpath(path, folder)) not in _UNLISTED:
                files[relative] = [os.path.getsize(path), _file_crc32(path)]
    content = {"metrics": metrics, "files": dict(sorted(files.items()))}
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
    for name, (size, crc32) in files.items():
        path = os.path.join(folder, name)
        if not os.path.exists(path):
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


def _read(folder: str) -> dict[str, Any]:
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        content = json.load(file)
    if not isinstance(content, dict) or content.pop("crc32", None) != _content_crc32(content):
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
