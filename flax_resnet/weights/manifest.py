"""A folder's seal: a file that lists the others with their lengths and checksums.

Orbax's files are checksummed in part alone: a byte that flips among an array's compressed data
comes back as other numbers. A seal tells; the trainer writes it once a folder is complete.
"""

from __future__ import annotations

import json
import os
import zlib
from typing import Any

from flax_resnet.files import write_atomically

FILE = "seal.json"
_CHUNK = 2**20
# Orbax writes the time of things into this one after the rest.
_UNSEALED = (FILE, "_CHECKPOINT_METADATA")


def is_sealed(folder: str) -> bool:
    """Whether there is a seal, whatever it says."""
    return os.path.exists(os.path.join(folder, FILE))


def check(folder: str) -> None:
    """Raises ValueError where a folder is not as it was sealed, or not sealed."""
    if not is_sealed(folder):
        raise ValueError("it was not finished: it has no seal")
    try:
        sealed = _read(folder)["files"].items()
    except (OSError, ValueError) as error:
        raise ValueError(f"{FILE} is damaged: {error}") from error
    for name, (size, crc32) in sealed:
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            raise ValueError(f"{name} is missing")
        if os.path.getsize(path) != size:
            raise ValueError(f"{name} has {os.path.getsize(path):,} bytes, not {size:,}")
        if crc32_of_file(path) != crc32:
            raise ValueError(f"{name} is not what was written: its checksum differs")


def metrics(folder: str) -> dict[str, Any]:
    """The metrics that were sealed; empty where there are none, or no seal that can be read."""
    try:
        return _read(folder)["metrics"]
    except (OSError, ValueError):
        return {}


def _read(folder: str) -> dict[str, Any]:
    with open(os.path.join(folder, FILE), encoding="utf-8") as file:
        content = json.load(file)
    if not isinstance(content, dict) or content.pop("crc32", None) != crc32_of(content):
        raise ValueError("its own checksum differs")
    return content


def crc32_of(content: dict[str, Any]) -> int:
    """The checksum that a seal has of itself."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def crc32_of_file(path: str) -> int:
    """A file's checksum."""
    crc32 = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc32 = zlib.crc32(chunk, crc32)
    return crc32


def seal(folder: str, metrics: dict[str, Any]) -> None:
    """Writes the seal of ``folder`` as it is, with its evaluation's ``metrics``."""
    files = {name: [os.path.getsize(path), crc32_of_file(path)] for name, path in _files(folder)}
    content = {"metrics": metrics, "files": files}
    content["crc32"] = crc32_of(content)
    write_atomically(os.path.join(folder, FILE), json.dumps(content, indent=1) + "\n")


def _files(folder: str) -> list[tuple[str, str]]:
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            if relative not in _UNSEALED:
                found.append((relative, path))
    return sorted(found)
