"""Sealing a folder: writing what :mod:`flax_resnet.weights.manifest` checks."""

from __future__ import annotations

import json
import os
from typing import Any

from flax_resnet.weights.manifest import FILE, crc32_of, crc32_of_file
from train.runtime.files import write_atomically

# Orbax writes the time of things into this one after the rest.
_UNSEALED = (FILE, "_CHECKPOINT_METADATA")


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
