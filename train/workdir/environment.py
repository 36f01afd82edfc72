"""What a run ran on: for who wants to repeat it, and to see that all processes are alike."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import flax_resnet
from train.runtime.files import ROOT

VERSIONS_OF = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def versions() -> dict[str, str]:
    """Of this package, Python and the libraries that compute."""
    own = {"flax-resnet": flax_resnet.__version__, "python": platform.python_version()}
    return own | {name: importlib.metadata.version(name) for name in VERSIONS_OF}


def describe() -> dict[str, Any]:
    """Versions, the code's revision, and devices and processes, as JSON can hold them."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "git": git(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def command() -> str | None:
    """The command of this project that was typed, for a shell; None where Python was used."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    if main is None or not main.name.startswith("train."):
        return None
    module = main.name.removesuffix(".__main__")  # of a command that is a package
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def git() -> dict[str, Any] | None:
    """``{"revision", "changed"}`` of the folder that the packages lie in, where Git knows it.

    ``changed`` says whether files differ from the revision, untracked ones aside.
    """

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return result.stdout.strip()

    try:
        if Path(ask("rev-parse", "--show-toplevel")).resolve() != ROOT.resolve():
            return None  # somebody else's, around an installed package
        changed = bool(ask("status", "--porcelain", "--untracked-files=no"))
        return {"revision": ask("rev-parse", "HEAD"), "changed": changed}
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def code_digest() -> str:
    """A checksum over the packages' source files."""
    digest = hashlib.sha256()
    for package in ("flax_resnet", "train"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]
